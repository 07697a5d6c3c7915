"""ShuffleNetV2 ×1 for small images (Ma et al. 2018, arXiv 1807.11164).

A 1×1 stem keeps the size, three stages halve it. Keys of the state dict as in RepDistiller and mdistiller; initial weights
as PyTorch makes them. The last ReLU of a block comes after the channel shuffle instead of before it, and covers the untouched
half as well, which is not negative anyway: the results are the same, and a stage's pre-activation has its channels in the
order of the stage (the peers give it unshuffled).
"""

from __future__ import annotations

from torch import Tensor, nn

from distillctl_cifar.models.layers import conv1x1, conv3x3, interleave

_STEM = 24
_STAGES = ((116, 3), (232, 7), (464, 3))
"""Channels, and blocks after the one that halves the size."""
_FEATURES = 1024


class BasicBlock(nn.Module):
    """Half of the channels pass untouched, half go through 1×1, 3×3 depthwise, 1×1; then both are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = conv1x1(half, half)
        self.bn1 = nn.BatchNorm2d(half)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(half, half, groups=half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv1x1(half, half)
        self.bn3 = nn.BatchNorm2d(half)
        self.relu_out = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), not negative → the same shape."""
        kept, y = x.chunk(2, dim=1)
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(y)))))
        out: Tensor = self.relu_out(interleave(kept, self.bn3(self.conv3(y))))
        return out


class DownBlock(nn.Module):
    """Two branches of stride 2 (depthwise and 1×1; 1×1, depthwise and 1×1), shuffled together."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1 = conv3x3(inputs, inputs, 2, groups=inputs)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv2 = conv1x1(inputs, half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv1x1(inputs, half)
        self.bn3 = nn.BatchNorm2d(half)
        self.relu3 = nn.ReLU()
        self.conv4 = conv3x3(half, half, 2, groups=half)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = conv1x1(half, half)
        self.bn5 = nn.BatchNorm2d(half)
        self.relu_out = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H/2, W/2)."""
        left = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        right = self.bn4(self.conv4(self.relu3(self.bn3(self.conv3(x)))))
        out: Tensor = self.relu_out(interleave(left, self.bn5(self.conv5(right))))
        return out


class ShuffleNetV2(nn.Module):
    """(B, 3, H, W) → logits (B, num_classes)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = conv1x1(3, _STEM)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.relu1 = nn.ReLU()
        (first, _), (second, _), (third, _) = _STAGES
        self.layer1 = _stage(_STEM, first, _STAGES[0][1])
        self.layer2 = _stage(first, second, _STAGES[1][1])
        self.layer3 = _stage(second, third, _STAGES[2][1])
        self.conv2 = conv1x1(third, _FEATURES)
        self.bn2 = nn.BatchNorm2d(_FEATURES)
        self.relu2 = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(_FEATURES, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        x = self.relu1(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        logits: Tensor = self.linear(self.avgpool(x).flatten(1))
        return logits


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(DownBlock(inputs, outputs), *(BasicBlock(outputs) for _ in range(blocks)))


def ShuffleV2(num_classes: int = 100) -> ShuffleNetV2:  # noqa: N802 - the name that everybody uses
    """Width 1, 116 to 464 channels."""
    return ShuffleNetV2(num_classes)
