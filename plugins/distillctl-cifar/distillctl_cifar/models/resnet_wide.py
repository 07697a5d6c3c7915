"""The ResNets of ImageNet on small images: a 3×3 stem without pool, four stages (He et al. 2016, arXiv 1512.03385).

Written with a capital R everywhere, to tell them from the narrow ones. Keys of the state dict as in RepDistiller and
mdistiller (`shortcut`, `linear`).
"""

from __future__ import annotations

from torch import Tensor, nn

from distillctl_cifar.models.layers import conv1x1, conv3x3, init_convolutions, projection


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut; `relu_out` receives the sum."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = projection(inputs, width, stride) if stride != 1 or inputs != width else nn.Sequential()
        self.relu_out = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, width, H/stride, W/stride)."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu_out(y + self.shortcut(x))
        return out


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions and a shortcut; `relu_out` receives the sum."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = conv1x1(inputs, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = conv1x1(width, outputs)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = projection(inputs, outputs, stride) if stride != 1 or inputs != outputs else nn.Sequential()
        self.relu_out = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, 4 · width, H/stride, W/stride)."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(y)))))
        out: Tensor = self.relu_out(y + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """(B, 3, H, W) → logits (B, num_classes). `blocks`: how many each of the four stages has."""

    def __init__(self, block: type[BasicBlock | Bottleneck], blocks: tuple[int, int, int, int], num_classes: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(3, 64)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.layer1 = _stage(block, 64, 64, blocks[0], 1)
        self.layer2 = _stage(block, 64 * block.expansion, 128, blocks[1], 2)
        self.layer3 = _stage(block, 128 * block.expansion, 256, blocks[2], 2)
        self.layer4 = _stage(block, 256 * block.expansion, 512, blocks[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(512 * block.expansion, num_classes)
        init_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.linear(self.avgpool(x).flatten(1))
        return logits


def _stage(block: type[BasicBlock | Bottleneck], inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    rest = (block(width * block.expansion, width, 1) for _ in range(blocks - 1))
    return nn.Sequential(block(inputs, width, stride), *rest)


def ResNet18(num_classes: int = 100) -> ResNet:  # noqa: N802 - the name that everybody uses
    """18 layers, 64 to 512 channels."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes)


def ResNet34(num_classes: int = 100) -> ResNet:  # noqa: N802
    """34 layers, 64 to 512 channels."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes)


def ResNet50(num_classes: int = 100) -> ResNet:  # noqa: N802
    """50 layers, 256 to 2048 channels."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes)


def ResNet101(num_classes: int = 100) -> ResNet:  # noqa: N802
    """101 layers, 256 to 2048 channels."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes)


def ResNet152(num_classes: int = 100) -> ResNet:  # noqa: N802
    """152 layers, 256 to 2048 channels."""
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes)
