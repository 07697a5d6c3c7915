"""Forwards of the less usual blocks, written out again from the functions of torch."""

import pytest
import torch
import torch.nn.functional as F

from distillctl_cifar.models import create
from distillctl_cifar.models.layers import interleave, shuffle


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def live(module):
    """Gives every BN statistics and factors that are not those of the start."""
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(part.weight, 1, 0.3)
            torch.nn.init.normal_(part.bias, 0, 0.3)
            torch.nn.init.normal_(part.running_mean, 0, 0.3)
            torch.nn.init.uniform_(part.running_var, 0.5, 2)
    return module.double().eval()


def norm(bn, x):
    scale = (bn.weight / (bn.running_var + bn.eps).sqrt()).view(-1, 1, 1)
    return (x - bn.running_mean.view(-1, 1, 1)) * scale + bn.bias.view(-1, 1, 1)


def shuffled(x, groups):
    """Channel j of group i goes to place j · groups + i."""
    out = torch.empty_like(x)
    size = x.shape[1] // groups
    for i in range(groups):
        for j in range(size):
            out[:, j * groups + i] = x[:, i * size + j]
    return out


def test_shuffles():
    x = torch.randn(2, 12, 3, 3)
    assert torch.equal(shuffle(x, 3), shuffled(x, 3))
    a, b = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    assert torch.equal(interleave(a, b), shuffled(torch.cat((a, b), 1), 2))


def test_shufflenet_v2_block():
    block = live(create("ShuffleV2").layer1[1])
    x = torch.rand(2, 116, 5, 5, dtype=torch.float64)
    a, b = x[:, :58], x[:, 58:]
    y = norm(block.bn1, F.conv2d(b, block.conv1.weight)).relu()
    y = norm(block.bn2, F.conv2d(y, block.conv2.weight, padding=1, groups=58))
    y = norm(block.bn3, F.conv2d(y, block.conv3.weight)).relu()
    torch.testing.assert_close(block(x), shuffled(torch.cat((a, y), 1), 2))


def test_shufflenet_v2_down_block():
    block = live(create("ShuffleV2").layer1[0])
    x = torch.rand(2, 24, 6, 6, dtype=torch.float64)
    left = norm(block.bn1, F.conv2d(x, block.conv1.weight, stride=2, padding=1, groups=24))
    left = norm(block.bn2, F.conv2d(left, block.conv2.weight)).relu()
    right = norm(block.bn3, F.conv2d(x, block.conv3.weight)).relu()
    right = norm(block.bn4, F.conv2d(right, block.conv4.weight, stride=2, padding=1, groups=58))
    right = norm(block.bn5, F.conv2d(right, block.conv5.weight)).relu()
    torch.testing.assert_close(block(x), shuffled(torch.cat((left, right), 1), 2))


@pytest.mark.parametrize(
    ("layer", "index", "channels", "first", "middle"), [("layer1", 0, 24, 1, 54), ("layer2", 0, 240, 3, 60), ("layer2", 1, 480, 3, 120)]
)
def test_shufflenet_v1_block(layer, index, channels, first, middle):
    block = live(create("ShuffleV1").get_submodule(layer)[index])
    x = torch.rand(2, channels, 6, 6, dtype=torch.float64)
    stride = 2 if index == 0 else 1
    y = norm(block.bn1, F.conv2d(x, block.conv1.weight, groups=first)).relu()
    y = shuffled(y, first)
    y = norm(block.bn2, F.conv2d(y, block.conv2.weight, stride=stride, padding=1, groups=middle)).relu()
    y = norm(block.bn3, F.conv2d(y, block.conv3.weight, groups=3))
    expected = torch.cat((y, F.avg_pool2d(x, 3, 2, 1)), 1) if stride == 2 else x + y
    torch.testing.assert_close(block(x), expected.relu())


@pytest.mark.parametrize("index", [0, 1])
def test_wide_resnet_block(index):
    block = live(create("wrn_16_2").block1.layer[index])
    x = torch.randn(2, (16, 32)[index], 6, 6, dtype=torch.float64)
    active = norm(block.bn1, x).relu()
    y = norm(block.bn2, F.conv2d(active, block.conv1.weight, padding=1)).relu()
    y = F.conv2d(y, block.conv2.weight, padding=1)
    shortcut = F.conv2d(active, block.convShortcut.weight) if index == 0 else x  # the projection starts from the activated input
    torch.testing.assert_close(block(x), shortcut + y)


@pytest.mark.parametrize(("row", "index", "residual"), [(1, 0, False), (1, 1, True), (2, 0, False)])
def test_inverted_residual(row, index, residual):
    block = live(create("MobileNetV2").blocks[row][index])
    expand, bn1, _, depthwise, bn2, _, project, bn3 = block.conv
    x = torch.randn(2, expand.in_channels, 6, 6, dtype=torch.float64)
    y = norm(bn1, F.conv2d(x, expand.weight)).relu()
    y = norm(bn2, F.conv2d(y, depthwise.weight, stride=2 if row == 2 else 1, padding=1, groups=depthwise.out_channels)).relu()
    y = norm(bn3, F.conv2d(y, project.weight))
    torch.testing.assert_close(block(x), x + y if residual else y)


@pytest.mark.parametrize("name", ["resnet8", "ResNet50"])
@pytest.mark.parametrize("layer", ["layer1", "layer2"])
def test_residual_block(name, layer):
    block = live(create(name).get_submodule(layer)[0])
    stride = 2 if layer == "layer2" else 1
    x = torch.randn(2, block.conv1.in_channels, 6, 6, dtype=torch.float64)
    if name == "ResNet50":  # the 3×3 in the middle has the stride
        y = norm(block.bn1, F.conv2d(x, block.conv1.weight)).relu()
        y = norm(block.bn2, F.conv2d(y, block.conv2.weight, stride=stride, padding=1)).relu()
        y = norm(block.bn3, F.conv2d(y, block.conv3.weight))
        projection = block.shortcut
    else:
        y = norm(block.bn1, F.conv2d(x, block.conv1.weight, stride=stride, padding=1)).relu()
        y = norm(block.bn2, F.conv2d(y, block.conv2.weight, padding=1))
        projection = block.downsample
    shortcut = norm(projection[1], F.conv2d(x, projection[0].weight, stride=stride)) if projection else x
    torch.testing.assert_close(block(x), (y + shortcut).relu())


def test_vgg_forward():
    model = live(create("vgg8", 5))
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    y = x
    for k in range(5):
        conv, bn = model.get_submodule(f"block{k}")
        y = norm(bn, F.conv2d(y, conv.weight, conv.bias, padding=1)).relu()
        y = F.max_pool2d(y, 2) if k < 3 else y
    torch.testing.assert_close(model(x), F.linear(y.mean((2, 3)), model.classifier.weight, model.classifier.bias))
