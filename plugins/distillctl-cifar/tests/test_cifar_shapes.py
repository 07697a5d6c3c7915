"""Parameters, state-dict entries, keys and feature shapes of every model, against the figures that the benchmarks share."""

import pytest
import torch

from distillctl.models.features import Tapped, evaluating
from distillctl_cifar.models import MODELS, create
from distillctl_cifar.zoo import SPECS

pytestmark = pytest.mark.slow

BY_NAME = {spec.name: spec for spec in SPECS}

# parameters and entries of the state dict at 100 classes, dimensions of the pooled feature
COUNTS = {
    "resnet8": (83_892, 56, 64),
    "resnet14": (181_108, 92, 64),
    "resnet20": (278_324, 128, 64),
    "resnet32": (472_756, 200, 64),
    "resnet44": (667_188, 272, 64),
    "resnet56": (861_620, 344, 64),
    "resnet110": (1_736_564, 668, 64),
    "resnet8x4": (1_233_540, 62, 256),
    "resnet32x4": (7_433_860, 206, 256),
    "wrn_16_1": (180_916, 82, 64),
    "wrn_16_2": (703_284, 83, 128),
    "wrn_40_1": (569_780, 226, 64),
    "wrn_40_2": (2_255_156, 227, 128),
    "vgg8": (3_965_028, 37, 512),
    "vgg11": (9_277_284, 58, 512),
    "vgg13": (9_462_180, 72, 512),
    "vgg16": (14_774_436, 93, 512),
    "vgg19": (20_086_692, 114, 512),
    "MobileNetV2": (812_836, 320, 1280),
    "ShuffleV1": (949_258, 296, 960),
    "ShuffleV2": (1_355_528, 338, 1024),
    "ResNet18": (11_220_132, 122, 512),
    "ResNet34": (21_328_292, 218, 512),
    "ResNet50": (23_705_252, 320, 2048),
    "ResNet101": (42_697_380, 626, 2048),
    "ResNet152": (58_341_028, 932, 2048),
}

# stem, stage1, … for images of 32 pixels: channels and side
NARROW = [(16, 32), (16, 32), (32, 16), (64, 8)]
WIDE = [(32, 32), (64, 32), (128, 16), (256, 8)]
WRN_2 = [(16, 32), (32, 32), (64, 16), (128, 8)]
VGG = [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)]
BASIC = [(64, 32), (64, 32), (128, 16), (256, 8), (512, 4)]
BOTTLENECK = [(64, 32), (256, 32), (512, 16), (1024, 8), (2048, 4)]
FEATURES = {
    **dict.fromkeys(("resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"), NARROW),
    **dict.fromkeys(("resnet8x4", "resnet32x4"), WIDE),
    **dict.fromkeys(("wrn_16_1", "wrn_40_1"), NARROW),
    **dict.fromkeys(("wrn_16_2", "wrn_40_2"), WRN_2),
    **dict.fromkeys(("vgg8", "vgg11", "vgg13", "vgg16", "vgg19"), VGG),
    "MobileNetV2": [(16, 16), (12, 16), (16, 8), (48, 4), (160, 2)],
    "ShuffleV1": [(24, 32), (240, 16), (480, 8), (960, 4)],
    "ShuffleV2": [(24, 32), (116, 16), (232, 8), (464, 4)],
    **dict.fromkeys(("ResNet18", "ResNet34"), BASIC),
    **dict.fromkeys(("ResNet50", "ResNet101", "ResNet152"), BOTTLENECK),
}

# keys that checkpoints of the benchmarks have, among others
KEYS = {
    "resnet20": "conv1.weight bn1.running_mean layer2.0.downsample.0.weight layer2.0.downsample.1.bias layer3.2.bn2.weight fc.bias",
    "resnet8x4": "layer1.0.downsample.0.weight layer3.0.conv2.weight fc.weight",
    "wrn_16_2": "conv1.weight block1.layer.0.convShortcut.weight block3.layer.1.bn2.running_var bn1.weight fc.weight",
    "vgg8": "block0.0.weight block0.0.bias block4.1.num_batches_tracked classifier.weight",
    "vgg13": "block1.0.weight block1.3.weight block1.4.running_mean classifier.bias",
    "MobileNetV2": "conv1.0.weight conv1.1.weight blocks.0.0.conv.6.weight blocks.5.2.conv.7.bias conv2.0.weight classifier.0.weight",
    "ShuffleV1": "conv1.weight bn1.weight layer1.0.conv1.weight layer2.7.bn3.weight linear.weight",
    "ShuffleV2": "conv1.weight layer1.0.conv5.weight layer1.0.bn5.bias layer3.3.bn3.weight conv2.weight bn2.weight linear.bias",
    "ResNet18": "layer2.0.shortcut.0.weight layer2.0.shortcut.1.running_mean layer4.1.bn2.weight linear.weight",
    "ResNet50": "layer1.0.shortcut.0.weight layer4.2.conv3.weight layer4.2.bn3.bias linear.weight",
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def images(size=32):
    return torch.randn(2, 3, size, size)


def test_the_tables_cover_the_zoo():
    assert set(COUNTS) == set(FEATURES) == set(MODELS) == set(BY_NAME)
    assert len(BY_NAME) == len(SPECS)
    with pytest.raises(ValueError, match="resnet21"):
        create("resnet21")


@pytest.mark.parametrize("name", MODELS)
def test_parameters_and_entries(name):
    with torch.device("meta"):
        model = create(name, 100)
    parameters, entries, pooled = COUNTS[name]
    assert sum(p.numel() for p in model.parameters()) == parameters == BY_NAME[name].parameters
    assert len(model.state_dict()) == entries
    assert model.get_submodule(BY_NAME[name].classifier).in_features == pooled


@pytest.mark.parametrize("name", KEYS)
def test_keys_of_the_benchmarks(name):
    with torch.device("meta"):
        keys = set(create(name).state_dict())
    assert set(KEYS[name].split()) <= keys


@pytest.mark.parametrize("name", MODELS)
def test_feature_shapes(name):
    spec = BY_NAME[name]
    with torch.device("meta"):
        model = create(name, 5)
    shapes = Tapped(model, spec, spec.stages).probe((3, 32, 32))
    expected = {"stem" if k == 0 else f"stage{k}": (c, side, side) for k, (c, side) in enumerate(FEATURES[name])}
    assert {k: v for k, v in shapes.items() if k not in ("logits", "final") and not k.endswith(":pre")} == expected
    for pre in (k for k in shapes if k.endswith(":pre")):
        assert shapes[pre] == shapes[pre.removesuffix(":pre")]
    assert shapes["logits"] == (5,)


@pytest.mark.parametrize("size", [64, 96])
@pytest.mark.parametrize("name", MODELS)
def test_larger_images(name, size):
    with torch.device("meta"):
        assert create(name, 5).eval()(torch.empty(2, 3, size, size)).shape == (2, 5)


def test_vgg_pools_once_more_for_large_images():
    spec = BY_NAME["vgg8"]
    tapped = Tapped(create("vgg8", 5), spec, ["stage3", "stage4"])
    assert [tapped.probe((3, side, side))["stage4"][1:] for side in (32, 48, 64, 96)] == [(4, 4), (6, 6), (4, 4), (6, 6)]


@pytest.mark.parametrize("name", ["resnet8", "resnet8x4", "vgg8", "vgg13", "ShuffleV1", "ShuffleV2", "ResNet18", "ResNet50"])
def test_a_stage_is_the_relu_of_its_pre_activation(name):
    spec = BY_NAME[name]
    tapped = Tapped(create(name, 5), spec, spec.stages)
    features = tapped(images())
    pres = [n for n in spec.stages if n.endswith(":pre")]
    assert len(pres) == len(FEATURES[name]) - 1
    for pre in pres:
        assert features[pre].min() < 0, "not activated"
        torch.testing.assert_close(features[pre].relu(), features[pre.removesuffix(":pre")], rtol=0, atol=0)


def test_wide_resnets_give_raw_sums_and_the_next_normalisation():
    spec = BY_NAME["wrn_16_2"]
    model = create("wrn_16_2", 5)
    tapped = Tapped(model, spec, spec.stages)
    with evaluating(model), torch.no_grad():
        features = tapped(images())
        for k, following in ((1, model.block2.layer[0].bn1), (2, model.block3.layer[0].bn1), (3, model.bn1)):
            assert features[f"stage{k}"].min() < 0
            torch.testing.assert_close(following(features[f"stage{k}"]), features[f"stage{k}:pre"], rtol=0, atol=0)


def test_mobilenet_gives_linear_bottlenecks():
    """A stage ends without an activation, so it is its own pre-activation."""
    spec = BY_NAME["MobileNetV2"]
    features = Tapped(create("MobileNetV2", 5), spec, spec.stages)(images())
    for k in (1, 2, 3, 4):
        assert features[f"stage{k}"].min() < 0
        assert torch.equal(features[f"stage{k}"], features[f"stage{k}:pre"])


@pytest.mark.parametrize("name", ["resnet8x4", "wrn_16_2", "vgg8", "MobileNetV2", "ResNet18"])
def test_initial_kernels_have_variance_2_over_fan_out(name):
    for path, module in create(name).named_modules():
        if isinstance(module, torch.nn.Conv2d) and module.weight.numel() > 20_000:
            expected = (2 / (module.out_channels * module.kernel_size[0] * module.kernel_size[1])) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05), path
            assert module.bias is None or not module.bias.any()


@pytest.mark.parametrize("name", KEYS)
def test_no_activation_writes_in_place(name):
    with torch.device("meta"):
        model = create(name)
    assert not [n for n, m in model.named_modules() if getattr(m, "inplace", False)]
