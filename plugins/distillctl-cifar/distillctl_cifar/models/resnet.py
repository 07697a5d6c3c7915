"""The ResNets of the CIFAR experiments: depth 6n + 2, three stages, projection shortcuts (He et al. 2016, arXiv 1512.03385).

`resnet8x4` and `resnet32x4` are four times as wide after a stem twice as wide. Keys of the state dict as in RepDistiller and
mdistiller. ReLUs are modules of their own and never in place, so that what comes before and after them can be captured.
"""

from __future__ import annotations

from torch import Tensor, nn

from distillctl_cifar.models.layers import conv3x3, init_convolutions, projection


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut; `relu_out` receives the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = projection(inputs, outputs, stride) if stride != 1 or inputs != outputs else None
        self.relu_out = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H/stride, W/stride)."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu_out(y + shortcut)
        return out


class ResNet(nn.Module):
    """(B, 3, H, W) → logits (B, num_classes).

    depth: 6n + 2, for n blocks a stage.
    channels: of the stem and of the three stages; the last two stages halve the size.
    """

    def __init__(self, depth: int, channels: tuple[int, int, int, int], num_classes: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = conv3x3(3, channels[0])
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.relu = nn.ReLU()
        self.layer1 = _stage(channels[0], channels[1], blocks, 1)
        self.layer2 = _stage(channels[1], channels[2], blocks, 2)
        self.layer3 = _stage(channels[2], channels[3], blocks, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels[3], num_classes)
        init_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs, stride), *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


_NARROW = (16, 16, 32, 64)
_WIDE = (32, 64, 128, 256)


def resnet8(num_classes: int = 100) -> ResNet:
    """8 layers, 16 to 64 channels."""
    return ResNet(8, _NARROW, num_classes)


def resnet14(num_classes: int = 100) -> ResNet:
    """14 layers, 16 to 64 channels."""
    return ResNet(14, _NARROW, num_classes)


def resnet20(num_classes: int = 100) -> ResNet:
    """20 layers, 16 to 64 channels."""
    return ResNet(20, _NARROW, num_classes)


def resnet32(num_classes: int = 100) -> ResNet:
    """32 layers, 16 to 64 channels."""
    return ResNet(32, _NARROW, num_classes)


def resnet44(num_classes: int = 100) -> ResNet:
    """44 layers, 16 to 64 channels."""
    return ResNet(44, _NARROW, num_classes)


def resnet56(num_classes: int = 100) -> ResNet:
    """56 layers, 16 to 64 channels."""
    return ResNet(56, _NARROW, num_classes)


def resnet110(num_classes: int = 100) -> ResNet:
    """110 layers, 16 to 64 channels."""
    return ResNet(110, _NARROW, num_classes)


def resnet8x4(num_classes: int = 100) -> ResNet:
    """8 layers, 64 to 256 channels."""
    return ResNet(8, _WIDE, num_classes)


def resnet32x4(num_classes: int = 100) -> ResNet:
    """32 layers, 64 to 256 channels."""
    return ResNet(32, _WIDE, num_classes)
