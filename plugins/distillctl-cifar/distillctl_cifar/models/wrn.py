"""Wide ResNets: depth 6n + 4, pre-activation blocks (Zagoruyko, Komodakis 2016, arXiv 1605.07146).

Keys of the state dict as in RepDistiller and mdistiller. A stage ends in a raw sum, which may be negative; its
"pre-activation" is the output of the BN that comes next (of the next block, or of the network's end), which runs once in a
forward like every other layer: computing it again for a feature would update its statistics twice a step.
"""

from __future__ import annotations

from torch import Tensor, nn

from distillctl_cifar.models.layers import conv1x1, conv3x3, init_convolutions


class BasicBlock(nn.Module):
    """BN, ReLU, conv, twice, and a shortcut. Where the channels change, the shortcut starts from the activated input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.conv2 = conv3x3(outputs, outputs)
        self.convShortcut = conv1x1(inputs, outputs, stride) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H/stride, W/stride), not activated."""
        active = self.relu1(self.bn1(x))
        y: Tensor = self.conv2(self.relu2(self.bn2(self.conv1(active))))
        return y + (x if self.convShortcut is None else self.convShortcut(active))


class Stage(nn.Module):
    """Blocks in a row, under the key `layer`."""

    def __init__(self, inputs: int, outputs: int, blocks: int, stride: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(BasicBlock(inputs, outputs, stride), *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H/stride, W/stride), not activated."""
        y: Tensor = self.layer(x)
        return y


class WideResNet(nn.Module):
    """(B, 3, H, W) → logits (B, num_classes). `depth` is 6n + 4 for n blocks a stage, `factor` widens the stages."""

    def __init__(self, depth: int, factor: int, num_classes: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = conv3x3(3, 16)
        self.block1 = Stage(16, 16 * factor, blocks, 1)
        self.block2 = Stage(16 * factor, 32 * factor, blocks, 2)
        self.block3 = Stage(32 * factor, 64 * factor, blocks, 2)
        self.bn1 = nn.BatchNorm2d(64 * factor)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64 * factor, num_classes)
        init_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        x = self.block3(self.block2(self.block1(self.conv1(images))))
        logits: Tensor = self.fc(self.avgpool(self.relu(self.bn1(x))).flatten(1))
        return logits


def wrn_16_1(num_classes: int = 100) -> WideResNet:
    """16 layers, 16 to 64 channels."""
    return WideResNet(16, 1, num_classes)


def wrn_16_2(num_classes: int = 100) -> WideResNet:
    """16 layers, 32 to 128 channels."""
    return WideResNet(16, 2, num_classes)


def wrn_40_1(num_classes: int = 100) -> WideResNet:
    """40 layers, 16 to 64 channels."""
    return WideResNet(40, 1, num_classes)


def wrn_40_2(num_classes: int = 100) -> WideResNet:
    """40 layers, 32 to 128 channels."""
    return WideResNet(40, 2, num_classes)
