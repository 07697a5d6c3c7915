"""The branches: from a feature map of the student to logits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from distillctl import LenientBatchNorm2d


def make_branch(widths: Sequence[int], num_classes: int) -> nn.Sequential:
    """The branch of a stage: map (B, `widths[0]`, H, W) → logits (B, num_classes).

    widths: channels of the stage and of all deeper ones. Each deeper stage is answered by a separable convolution of its width that
    halves height and width; the deepest stage gets a 1×1 convolution.
    """
    width = widths[-1]
    steps: list[nn.Module] = [separable(a, b) for a, b in pairwise(widths)]
    if not steps:
        steps.append(nn.Conv2d(width, width, 1))
    branch = nn.Sequential(*steps, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
    for module in branch.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    return branch


def separable(channels: int, out: int) -> nn.Sequential:
    """Twice a 3×3 convolution of each channel, a 1×1 convolution, normalisation and ReLU; the first of stride 2, the second to `out`."""
    layers: list[nn.Module] = []
    for stride, width in ((2, channels), (1, out)):
        layers += [
            nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False),
            nn.Conv2d(channels, width, 1, bias=False),
            LenientBatchNorm2d(width),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)
