"""Declares the models: where their stages lie, without importing torch.

Stages are counted as in the benchmarks: `stem`, then `stage1` …, each with the pre-activation `:pre` where its network has one.
"""

from __future__ import annotations

from collections.abc import Iterator

from distillctl import ModelSpec

_RESNET = "He et al. 2016, arXiv 1512.03385"
_WRN = "Zagoruyko, Komodakis 2016, arXiv 1605.07146"
_VGG = "Simonyan, Zisserman 2015, arXiv 1409.1556"


def _spec(
    name: str, summary: str, paper: str, stages: dict[str, str], classifier: str, parameters: int, options: str = "CIFARModelOptions"
) -> ModelSpec:
    return ModelSpec(
        name=name,
        namespace="cifar",
        summary=summary,
        paper=paper,
        implementation="distillctl_cifar.builder:build",
        options=f"distillctl_cifar.model_options:{options}",
        stages=stages,
        classifier=classifier,
        input_size=32,
        parameters=parameters,
        classes=100,
    )


def _residual(stem: str, blocks: tuple[int, ...]) -> dict[str, str]:
    """Stages `layer1` … whose last block ends in `relu_out`, which receives the pre-activation. `blocks`: how many each has."""
    stages = {"stem": stem}
    for number, count in enumerate(blocks, 1):
        stages[f"stage{number}:pre"] = f"layer{number}.{count - 1}.relu_out:input"
        stages[f"stage{number}"] = f"layer{number}"
    return stages


def _narrow_resnets() -> Iterator[ModelSpec]:
    for depth, wide, parameters in (
        (8, False, 83_892), (14, False, 181_108), (20, False, 278_324), (32, False, 472_756), (44, False, 667_188),
        (56, False, 861_620), (110, False, 1_736_564), (8, True, 1_233_540), (32, True, 7_433_860),
    ):  # fmt: skip
        name, summary = f"resnet{depth}{'x4' if wide else ''}", f"ResNet of {depth} layers{', 4 times as wide' if wide else ''}"
        stages = _residual("relu", ((depth - 2) // 6,) * 3)
        yield _spec(name, summary, _RESNET, stages, "fc", parameters, "ResNetOptions")


def _wide_resnets() -> Iterator[ModelSpec]:
    # A stage ends in a raw sum; its pre-activation is what the following BN gives.
    stages = {
        "stem": "conv1",
        "stage1": "block1",
        "stage1:pre": "block2.layer.0.bn1",
        "stage2": "block2",
        "stage2:pre": "block3.layer.0.bn1",
        "stage3": "block3",
        "stage3:pre": "bn1",
        "final": "relu",
    }
    for depth, factor, parameters in ((16, 1, 180_916), (16, 2, 703_284), (40, 1, 569_780), (40, 2, 2_255_156)):
        yield _spec(f"wrn_{depth}_{factor}", f"wide ResNet of {depth} layers, width {factor}", _WRN, stages, "fc", parameters)


def _vggs() -> Iterator[ModelSpec]:
    stages = {"stem": "relu0"}
    for number in (1, 2, 3, 4):
        stages[f"stage{number}:pre"] = f"block{number}"
        stages[f"stage{number}"] = f"relu{number}"
    for depth, parameters in ((8, 3_965_028), (11, 9_277_284), (13, 9_462_180), (16, 14_774_436), (19, 20_086_692)):
        yield _spec(f"vgg{depth}", "VGG with BN and one linear layer", _VGG, stages, "classifier", parameters)


def _mobile() -> Iterator[ModelSpec]:
    # The bottlenecks of MobileNetV2 end without an activation: what they give is its own pre-activation.
    blocks = {"stage1": "blocks.1", "stage2": "blocks.2", "stage3": "blocks.4", "stage4": "blocks.6"}
    linear = {"stem": "conv1", **blocks, **{f"{name}:pre": path for name, path in blocks.items()}, "final": "conv2"}
    paper = "Sandler et al. 2018, arXiv 1801.04381"
    yield _spec("MobileNetV2", "MobileNetV2 at half width", paper, linear, "classifier.0", 812_836)
    paper = "Zhang et al. 2018, arXiv 1707.01083"
    yield _spec("ShuffleV1", "ShuffleNet with 3 groups", paper, _residual("relu", (4, 8, 4)), "linear", 949_258)
    paper = "Ma et al. 2018, arXiv 1807.11164"
    shuffle = {**_residual("relu1", (4, 8, 4)), "final": "relu2"}
    yield _spec("ShuffleV2", "ShuffleNetV2 at width 1", paper, shuffle, "linear", 1_355_528)


def _large_resnets() -> Iterator[ModelSpec]:
    for depth, blocks, parameters in (
        (18, (2, 2, 2, 2), 11_220_132), (34, (3, 4, 6, 3), 21_328_292), (50, (3, 4, 6, 3), 23_705_252), (101, (3, 4, 23, 3), 42_697_380),
        (152, (3, 8, 36, 3), 58_341_028),
    ):  # fmt: skip
        summary = f"ImageNet's ResNet-{depth} on small images"
        yield _spec(f"ResNet{depth}", summary, _RESNET, _residual("relu", blocks), "linear", parameters, "ResNetOptions")


SPECS = (*_narrow_resnets(), *_wide_resnets(), *_vggs(), *_mobile(), *_large_resnets())
