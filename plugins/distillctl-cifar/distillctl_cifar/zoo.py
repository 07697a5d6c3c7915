"""Declares the models: where their stages lie, without importing torch.

Stages are counted as in the benchmarks: `stem`, then `stage1` …, each with the pre-activation `:pre` where its network has one.
"""

from __future__ import annotations

from collections.abc import Iterator

from distillctl import ModelSpec

_RESNET = "He et al. 2016, arXiv 1512.03385"
_WRN = "Zagoruyko, Komodakis 2016, arXiv 1605.07146"
_VGG = "Simonyan, Zisserman 2015, arXiv 1409.1556"


def _spec(name: str, summary: str, paper: str, stages: dict[str, str], classifier: str, options: str = "CIFARModelOptions") -> ModelSpec:
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
    )


def _residual(stem: str, blocks: tuple[int, ...]) -> dict[str, str]:
    """Stages `layer1` … whose last block ends in `relu_out`, which receives the pre-activation. `blocks`: how many each has."""
    stages = {"stem": stem}
    for number, count in enumerate(blocks, 1):
        stages[f"stage{number}:pre"] = f"layer{number}.{count - 1}.relu_out:input"
        stages[f"stage{number}"] = f"layer{number}"
    return stages


def _narrow_resnets() -> Iterator[ModelSpec]:
    for depth, wide, million in (
        (8, False, "0.08"), (14, False, "0.18"), (20, False, "0.28"), (32, False, "0.47"), (44, False, "0.67"), (56, False, "0.86"),
        (110, False, "1.7"), (8, True, "1.2"), (32, True, "7.4"),
    ):  # fmt: skip
        summary = f"ResNet of {depth} layers{', 4 times as wide' if wide else ''}, {million} M parameters"
        stages = _residual("relu", ((depth - 2) // 6,) * 3)
        yield _spec(f"resnet{depth}{'x4' if wide else ''}", summary, _RESNET, stages, "fc", "ResNetOptions")


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
    for depth, factor, million in ((16, 1, "0.18"), (16, 2, "0.70"), (40, 1, "0.57"), (40, 2, "2.3")):
        yield _spec(f"wrn_{depth}_{factor}", f"wide ResNet of {depth} layers, width {factor}, {million} M parameters", _WRN, stages, "fc")


def _vggs() -> Iterator[ModelSpec]:
    stages = {"stem": "relu0"}
    for number in (1, 2, 3, 4):
        stages[f"stage{number}:pre"] = f"block{number}"
        stages[f"stage{number}"] = f"relu{number}"
    for name, million in (("vgg8", "4.0"), ("vgg11", "9.3"), ("vgg13", "9.5"), ("vgg16", "14.8"), ("vgg19", "20.1")):
        yield _spec(name, f"VGG with BN and one linear layer, {million} M parameters", _VGG, stages, "classifier")


def _mobile() -> Iterator[ModelSpec]:
    # The bottlenecks of MobileNetV2 end without an activation: what they give is its own pre-activation.
    blocks = {"stage1": "blocks.1", "stage2": "blocks.2", "stage3": "blocks.4", "stage4": "blocks.6"}
    linear = {"stem": "conv1", **blocks, **{f"{name}:pre": path for name, path in blocks.items()}, "final": "conv2"}
    paper = "Sandler et al. 2018, arXiv 1801.04381"
    yield _spec("MobileNetV2", "MobileNetV2 at half width, 0.81 M parameters", paper, linear, "classifier.0")
    paper = "Zhang et al. 2018, arXiv 1707.01083"
    yield _spec("ShuffleV1", "ShuffleNet with 3 groups, 0.95 M parameters", paper, _residual("relu", (4, 8, 4)), "linear")
    paper = "Ma et al. 2018, arXiv 1807.11164"
    shuffle = {**_residual("relu1", (4, 8, 4)), "final": "relu2"}
    yield _spec("ShuffleV2", "ShuffleNetV2 at width 1, 1.4 M parameters", paper, shuffle, "linear")


def _large_resnets() -> Iterator[ModelSpec]:
    for depth, blocks, million in (
        (18, (2, 2, 2, 2), "11.2"), (34, (3, 4, 6, 3), "21.3"), (50, (3, 4, 6, 3), "23.7"), (101, (3, 4, 23, 3), "42.7"),
        (152, (3, 8, 36, 3), "58.3"),
    ):  # fmt: skip
        summary = f"ImageNet's ResNet-{depth} on small images, {million} M parameters"
        yield _spec(f"ResNet{depth}", summary, _RESNET, _residual("relu", blocks), "linear", "ResNetOptions")


SPECS = (*_narrow_resnets(), *_wide_resnets(), *_vggs(), *_mobile(), *_large_resnets())
