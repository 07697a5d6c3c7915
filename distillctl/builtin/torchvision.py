"""Declares every classifier of torchvision, family by family. Imports neither torch nor torchvision.

Stages are the last outputs at strides 4, 8, 16 and 32 of the image (`stage1` … `stage4`), so that the same name means
the same resolution in any pair; `stem` lies before them. The deepest stage is the map that is pooled for the
classifier wherever a module returns that map, for instance the 1280-channel head convolution of MobileNetV2.
`stageK:pre` is declared where the last ReLU of a stage is a module, or a call of one, that can be named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from distillctl.api.hooks import hookimpl
from distillctl.api.specs import ModelSpec, WeightsInput

_OPTIONS = "distillctl.builtin.torchvision_options"
_V1, _V1_V2 = ("IMAGENET1K_V1",), ("IMAGENET1K_V1", "IMAGENET1K_V2")
_SWAG = ("IMAGENET1K_SWAG_E2E_V1", "IMAGENET1K_SWAG_LINEAR_V1")

# The members of torchvision's enums, but for VGG16's IMAGENET1K_FEATURES, whose classifier is not usable. Models that are not
# listed have IMAGENET1K_V1 alone.
_TWICE = (
    "efficientnet_b1 mobilenet_v2 mobilenet_v3_large regnet_x_400mf regnet_x_800mf regnet_x_1_6gf regnet_x_3_2gf regnet_x_8gf "
    "regnet_x_16gf regnet_x_32gf regnet_y_400mf regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf regnet_y_8gf resnet50 resnet101 "
    "resnet152 resnext50_32x4d resnext101_32x8d wide_resnet50_2 wide_resnet101_2"
)
_WEIGHTS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    **dict.fromkeys(_TWICE.split(), _V1_V2),
    **dict.fromkeys(("regnet_y_16gf", "regnet_y_32gf"), _V1_V2 + _SWAG),
    **dict.fromkeys(("regnet_y_128gf", "vit_h_14"), _SWAG),
    **dict.fromkeys(("vit_b_16", "vit_l_16"), _V1 + _SWAG),
})  # fmt: skip

_SIZES: Mapping[str, int] = MappingProxyType({
    "efficientnet_b1": 240, "efficientnet_b2": 288, "efficientnet_b3": 300, "efficientnet_b4": 380, "efficientnet_b5": 456,
    "efficientnet_b6": 528, "efficientnet_b7": 600, "efficientnet_v2_s": 384, "efficientnet_v2_m": 480, "efficientnet_v2_l": 480,
    "inception_v3": 299, "swin_v2_t": 256, "swin_v2_s": 256, "swin_v2_b": 256,
})  # fmt: skip

_PARAMETERS: Mapping[str, int] = MappingProxyType({
    "resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "resnet101": 44_549_160, "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904, "resnext101_32x8d": 88_791_336, "resnext101_64x4d": 83_455_272, "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696, "vgg11": 132_863_336, "vgg13": 133_047_848, "vgg16": 138_357_544, "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840, "vgg13_bn": 133_053_736, "vgg16_bn": 138_365_992, "vgg19_bn": 143_678_248, "alexnet": 61_100_840,
    "densenet121": 7_978_856, "densenet161": 28_681_000, "densenet169": 14_149_480, "densenet201": 20_013_928, "googlenet": 6_624_904,
    "inception_v3": 23_834_568, "squeezenet1_0": 1_248_424, "squeezenet1_1": 1_235_496, "mobilenet_v2": 3_504_872,
    "mobilenet_v3_small": 2_542_856, "mobilenet_v3_large": 5_483_032, "mnasnet0_5": 2_218_512, "mnasnet0_75": 3_170_208,
    "mnasnet1_0": 4_383_312, "mnasnet1_3": 6_282_256, "shufflenet_v2_x0_5": 1_366_792, "shufflenet_v2_x1_0": 2_278_604,
    "shufflenet_v2_x1_5": 3_503_624, "shufflenet_v2_x2_0": 7_393_996, "efficientnet_b0": 5_288_548, "efficientnet_b1": 7_794_184,
    "efficientnet_b2": 9_109_994, "efficientnet_b3": 12_233_232, "efficientnet_b4": 19_341_616, "efficientnet_b5": 30_389_784,
    "efficientnet_b6": 43_040_704, "efficientnet_b7": 66_347_960, "efficientnet_v2_s": 21_458_488, "efficientnet_v2_m": 54_139_356,
    "efficientnet_v2_l": 118_515_272, "regnet_x_400mf": 5_495_976, "regnet_x_800mf": 7_259_656, "regnet_x_1_6gf": 9_190_136,
    "regnet_x_3_2gf": 15_296_552, "regnet_x_8gf": 39_572_648, "regnet_x_16gf": 54_278_536, "regnet_x_32gf": 107_811_560,
    "regnet_y_400mf": 4_344_144, "regnet_y_800mf": 6_432_512, "regnet_y_1_6gf": 11_202_430, "regnet_y_3_2gf": 19_436_338,
    "regnet_y_8gf": 39_381_472, "regnet_y_16gf": 83_590_140, "regnet_y_32gf": 145_046_770, "regnet_y_128gf": 644_812_894,
    "convnext_tiny": 28_589_128, "convnext_small": 50_223_688, "convnext_base": 88_591_464, "convnext_large": 197_767_336,
    "swin_t": 28_288_354, "swin_s": 49_606_258, "swin_b": 87_768_224, "swin_v2_t": 28_351_570, "swin_v2_s": 49_737_442,
    "swin_v2_b": 87_930_848, "maxvit_t": 30_919_624, "vit_b_16": 86_567_656, "vit_b_32": 88_224_232, "vit_l_16": 304_326_632,
    "vit_l_32": 306_535_400, "vit_h_14": 632_045_800,
})  # fmt: skip
"""Of 1000 classes, without auxiliary heads."""

# Sizes of weights that were fine-tuned end to end above the model's own.
_END_TO_END: Mapping[str, int] = MappingProxyType({"vit_l_16": 512, "vit_h_14": 518})


def _input(name: str, weights: str) -> WeightsInput:
    """What the transforms of an enum's member say."""
    size = _END_TO_END.get(name, 384) if weights == "IMAGENET1K_SWAG_E2E_V1" else _SIZES.get(name, 224)
    if name == "efficientnet_v2_l":
        return WeightsInput(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), size=size)
    return WeightsInput(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=size)


def _stages(stem: str, *paths: str, pre: Mapping[str, str] = MappingProxyType({})) -> Mapping[str, str]:
    """`stem` (may be empty), then `stage1`, `stage2`, … and what lies before the last ReLU of some of them."""
    named = {"stem": stem} if stem else {}
    named.update({f"stage{number}": path for number, path in enumerate(paths, 1)})
    return MappingProxyType({**named, **{f"{name}:pre": path for name, path in pre.items()}})


def _inputs(*paths: str) -> Mapping[str, str]:
    """Before the ReLU modules at these paths, for `stage1`, `stage2`, …"""
    return {f"stage{number}": f"{path}:input" for number, path in enumerate(paths, 1)}


def _resnet(*blocks: int) -> Mapping[str, str]:
    """ResNet: a block calls one ReLU several times, the last time on the sum of branch and shortcut; `blocks` of each stage."""
    relus = (f"layer{number}.{count - 1}.relu" for number, count in enumerate(blocks, 1))
    pre = {f"stage{number}": f"{path}:input:final" for number, path in enumerate(relus, 1)}
    return _stages("relu", "layer1", "layer2", "layer3", "layer4", pre=pre)


def _vgg(convolutions: tuple[int, ...], norm: bool) -> Mapping[str, str]:
    """VGG: the last ReLU of blocks 2 to 5, and the pooled map behind them; `convolutions` counts those of each block."""
    relus, position = [], 0
    for count in convolutions:
        position += count * (3 if norm else 2) + 1  # convolution, norm, ReLU each time, then the pooling
        relus.append(f"features.{position - 2}")
    return _stages(relus[1], *relus[2:], f"features.{position - 1}", pre=_inputs(*relus[2:]))


def _vit(layers: int) -> Mapping[str, str]:
    """ViT: the patches after a quarter, half, three quarters and all of the encoder's layers."""
    return _stages("", *(f"encoder.layers.encoder_layer_{layers * quarter // 4 - 1}:tokens" for quarter in (1, 2, 3, 4)))


def _features(stem: int, *numbers: int) -> Mapping[str, str]:
    """Models whose stages are members of `features`."""
    return _stages(f"features.{stem}", *(f"features.{number}" for number in numbers))


@dataclass(frozen=True)
class _Family:
    """Models of one paper. models: name → stages; options: a class of `torchvision_options`."""

    summary: str
    paper: str
    models: Mapping[str, Mapping[str, str]]
    classifier: str
    options: str = ""


def _all(names: str, stages: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
    return dict.fromkeys(names.split(), stages)


_18, _50, _101, _152 = _resnet(2, 2, 2, 2), _resnet(3, 4, 6, 3), _resnet(3, 4, 23, 3), _resnet(3, 8, 36, 3)
# The bottlenecks of MobileNetV2 end without an activation: what they give is its own pre-activation.
_LINEAR = {"stage1": "features.3", "stage2": "features.6", "stage3": "features.13", "stage4": "features.18.2:input"}
_MOBILENET = _stages("features.0", "features.3", "features.6", "features.13", "features.18", pre=_LINEAR)
_ALEXNET = _stages("", "features.1", "features.4", "features.11", "features.12", pre=_inputs("features.1", "features.4", "features.11"))
_DENSENET = _stages("features.relu0", "features.denseblock1", "features.denseblock2", "features.denseblock3", "features.norm5")
_REGNET = _stages("stem", *(f"trunk_output.block{number}" for number in (1, 2, 3, 4)))
_MNASNET = _stages("layers.2", "layers.8", "layers.9", "layers.11", "layers.16", pre={"stage4": "layers.16:input"})
_SWIN = _stages("features.0:nhwc", "features.1:nhwc", "features.3:nhwc", "features.5:nhwc", "norm:nhwc")
_GOOGLENET = _stages("conv1", "conv3", "inception3b", "inception4e", "inception5b")
_INCEPTION = _stages("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c")
_VGG_DEPTHS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}

_FAMILIES = (
    _Family("ResNet", "He, Zhang, Ren, Sun 2016, arXiv 1512.03385",
            {"resnet18": _18, "resnet34": _50, "resnet50": _50, "resnet101": _101, "resnet152": _152}, "fc",
            "ResNetOptions"),
    _Family("ResNeXt: ResNet with grouped convolutions", "Xie, Girshick, Dollár, Tu, He 2017, arXiv 1611.05431",
            {"resnext50_32x4d": _50, "resnext101_32x8d": _101, "resnext101_64x4d": _101}, "fc", "ResNetOptions"),
    _Family("Wide ResNet: ResNet with twice the inner channels", "Zagoruyko, Komodakis 2016, arXiv 1605.07146",
            {"wide_resnet50_2": _50, "wide_resnet101_2": _101}, "fc", "ResNetOptions"),
    _Family("VGG", "Simonyan, Zisserman 2015, arXiv 1409.1556",
            {name: _vgg(depths, False) for name, depths in _VGG_DEPTHS.items()}, "classifier.6", "DropoutOptions"),
    _Family("VGG with batch normalisation", "Simonyan, Zisserman 2015, arXiv 1409.1556",
            {f"{name}_bn": _vgg(depths, True) for name, depths in _VGG_DEPTHS.items()}, "classifier.6", "DropoutOptions"),
    _Family("AlexNet, the version with one column", "Krizhevsky 2014, arXiv 1404.5997",
            {"alexnet": _ALEXNET}, "classifier.6", "DropoutOptions"),
    _Family("DenseNet; stage4 is normalised but before its ReLU", "Huang, Liu, van der Maaten, Weinberger 2017, arXiv 1608.06993",
            _all("densenet121 densenet161 densenet169 densenet201", _DENSENET), "classifier", "DropoutOptions"),
    _Family("GoogLeNet without its auxiliary heads", "Szegedy et al. 2015, arXiv 1409.4842",
            {"googlenet": _GOOGLENET}, "fc", "InceptionOptions"),
    _Family("Inception v3 without its auxiliary head", "Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2016, arXiv 1512.00567",
            {"inception_v3": _INCEPTION}, "fc", "InceptionOptions"),
    # The classifier is a convolution whose map is averaged, so there is no vector that a Linear layer receives.
    _Family("SqueezeNet, classifier and all convolutional (no `pooled`)", "Iandola et al. 2016, arXiv 1602.07360",
            {"squeezenet1_0": _features(1, 5, 10, 12), "squeezenet1_1": _features(1, 4, 7, 12)}, "", "DropoutOptions"),
    _Family("MobileNetV2", "Sandler, Howard, Zhu, Zhmoginov, Chen 2018, arXiv 1801.04381",
            {"mobilenet_v2": _MOBILENET}, "classifier.1", "DropoutOptions"),
    _Family("MobileNetV3", "Howard et al. 2019, arXiv 1905.02244",
            {"mobilenet_v3_small": _features(0, 1, 3, 8, 12), "mobilenet_v3_large": _features(0, 3, 6, 12, 16)},
            "classifier.3", "DropoutOptions"),
    _Family("MNASNet", "Tan et al. 2019, arXiv 1807.11626",
            _all("mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3", _MNASNET), "classifier.1", "DropoutOptions"),
    # `stage4` is `conv5` here, which gives the map that is pooled; torchvision's own module `stage4` is `conv5:input`.
    _Family("ShuffleNetV2; stage4 is the convolution after the last shuffle blocks", "Ma, Zhang, Zheng, Sun 2018, arXiv 1807.11164",
            _all("shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0",
                 _stages("conv1", "maxpool", "stage2", "stage3", "conv5")), "fc"),
    _Family("EfficientNet", "Tan, Le 2019, arXiv 1905.11946",
            {f"efficientnet_b{number}": _features(0, 2, 3, 5, 8) for number in range(8)}, "classifier.1", "DropoutDepthOptions"),
    _Family("EfficientNetV2", "Tan, Le 2021, arXiv 2104.00298",
            {"efficientnet_v2_s": _features(0, 2, 3, 5, 7), "efficientnet_v2_m": _features(0, 2, 3, 5, 8),
             "efficientnet_v2_l": _features(0, 2, 3, 5, 8)}, "classifier.1", "DropoutDepthOptions"),
    _Family("RegNet", "Radosavovic, Kosaraju, Girshick, He, Dollár 2020, arXiv 2003.13678",
            _all("regnet_x_400mf regnet_x_800mf regnet_x_1_6gf regnet_x_3_2gf regnet_x_8gf regnet_x_16gf regnet_x_32gf regnet_y_400mf "
                 "regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf regnet_y_8gf regnet_y_16gf regnet_y_32gf regnet_y_128gf", _REGNET), "fc"),
    _Family("ConvNeXt", "Liu, Mao, Wu, Feichtenhofer, Darrell, Xie 2022, arXiv 2201.03545",
            _all("convnext_tiny convnext_small convnext_base convnext_large", _features(0, 1, 3, 5, 7)), "classifier.2", "DepthOptions"),
    _Family("Swin transformer", "Liu et al. 2021, arXiv 2103.14030",
            _all("swin_t swin_s swin_b", _SWIN), "head", "DropoutOptions"),
    _Family("Swin transformer V2", "Liu et al. 2022, arXiv 2111.09883",
            _all("swin_v2_t swin_v2_s swin_v2_b", _SWIN), "head", "DropoutOptions"),
    _Family("MaxViT, for images of 224 pixels or a multiple", "Tu et al. 2022, arXiv 2204.01697",
            {"maxvit_t": _stages("stem", "blocks.0", "blocks.1", "blocks.2", "blocks.3")}, "classifier.5", "MaxVitOptions"),
    _Family("vision transformer, stages by depth", "Dosovitskiy et al. 2021, arXiv 2010.11929",
            {"vit_b_16": _vit(12), "vit_b_32": _vit(12), "vit_l_16": _vit(24), "vit_l_32": _vit(24), "vit_h_14": _vit(32)},
            "heads.head", "VitOptions"),
)  # fmt: skip


@hookimpl
def register_model() -> list[ModelSpec]:
    """Every classifier of `torchvision.models`."""
    return [
        ModelSpec(
            name=name,
            namespace="torchvision",
            summary=family.summary,
            paper=family.paper,
            implementation="distillctl.builtin.torchvision_models:build",
            options=f"{_OPTIONS}:{family.options}" if family.options else "",
            stages=stages,
            classifier=family.classifier,
            weights=_WEIGHTS.get(name, _V1),
            weights_loader="distillctl.builtin.torchvision_models:load_weights",
            weights_input={weights: _input(name, weights) for weights in _WEIGHTS.get(name, _V1)},
            weights_top1="distillctl.builtin.torchvision_models:published_top1",
            replaceable=("conv1",) if family.options == "ResNetOptions" else (),
            input_size=_SIZES.get(name, 224),
            parameters=_PARAMETERS[name],
        )
        for family in _FAMILIES
        for name, stages in family.models.items()
    ]
