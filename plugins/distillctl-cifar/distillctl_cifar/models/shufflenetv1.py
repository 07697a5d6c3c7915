"""ShuffleNet with 3 groups for small images (Zhang et al. 2018, arXiv 1707.01083).

A 1×1 stem keeps the size, three stages of 4, 8 and 4 blocks halve it. Keys of the state dict as in RepDistiller and
mdistiller; initial weights as PyTorch makes them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distillctl_cifar.models.layers import conv1x1, conv3x3, shuffle

_STEM = 24
_GROUPS = 3
_STAGES = ((240, 4), (480, 8), (960, 4))
"""Channels and blocks."""


class Bottleneck(nn.Module):
    """Grouped 1×1, shuffle, 3×3 depthwise, grouped 1×1; then the shortcut is added, or concatenated where the size halves.

    outputs: channels of the residual branch; with a concatenation the block gives `inputs` more.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        middle = outputs // 4
        self.groups = 1 if inputs == _STEM else _GROUPS  # 24 channels are too few to be divided
        self.conv1 = conv1x1(inputs, middle, groups=self.groups)
        self.bn1 = nn.BatchNorm2d(middle)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(middle, middle, stride, groups=middle)
        self.bn2 = nn.BatchNorm2d(middle)
        self.relu2 = nn.ReLU()
        self.conv3 = conv1x1(middle, outputs, groups=_GROUPS)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None
        self.relu_out = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H, W), or (B, inputs + outputs, H/2, W/2)."""
        y = self.relu1(self.bn1(self.conv1(x)))
        if self.groups > 1:
            y = shuffle(y, self.groups)
        y = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(y)))))
        out: Tensor = self.relu_out(y + x if self.pool is None else torch.cat((y, self.pool(x)), 1))
        return out


class ShuffleNet(nn.Module):
    """(B, 3, H, W) → logits (B, num_classes)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = conv1x1(3, _STEM)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.relu = nn.ReLU()
        (first, _), (second, _), (third, _) = _STAGES
        self.layer1 = _stage(_STEM, first, _STAGES[0][1])
        self.layer2 = _stage(first, second, _STAGES[1][1])
        self.layer3 = _stage(second, third, _STAGES[2][1])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(third, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(self.avgpool(x).flatten(1))
        return logits


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(Bottleneck(inputs, outputs - inputs, 2), *(Bottleneck(outputs, outputs, 1) for _ in range(blocks - 1)))


def ShuffleV1(num_classes: int = 100) -> ShuffleNet:  # noqa: N802 - the name that everybody uses
    """3 groups, 240 to 960 channels."""
    return ShuffleNet(num_classes)
