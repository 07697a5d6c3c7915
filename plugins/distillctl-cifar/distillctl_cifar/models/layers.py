"""What the networks share: convolutions, shuffles and the initial weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv3x3(inputs: int, outputs: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A 3×3 convolution without bias that keeps the size, or halves it with stride 2."""
    return nn.Conv2d(inputs, outputs, 3, stride, 1, groups=groups, bias=False)


def conv1x1(inputs: int, outputs: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A 1×1 convolution without bias."""
    return nn.Conv2d(inputs, outputs, 1, stride, groups=groups, bias=False)


def projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A 1×1 convolution and BN for a shortcut whose shape changes; keys `0` and `1`."""
    return nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Mixes the channels of (B, C, H, W): channel j of group i goes to place j · groups + i."""
    batch, channels, height, width = x.shape
    return x.reshape(batch, groups, channels // groups, height, width).transpose(1, 2).flatten(1, 2)


def interleave(a: Tensor, b: Tensor) -> Tensor:
    """The channels of two maps (B, C, H, W) in turn: (B, 2C, H, W). The same as their concatenation shuffled in 2 groups."""
    return torch.stack((a, b), dim=2).flatten(1, 2)


def init_convolutions(model: nn.Module) -> None:
    """Kernels from N(0, 2 / (k² · outputs)), biases 0. BN starts at weight 1 and bias 0 as PyTorch makes it."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def init_classifier(classifier: nn.Linear) -> None:
    """Weights from N(0, 0.01²), bias 0."""
    nn.init.normal_(classifier.weight, 0.0, 0.01)
    nn.init.zeros_(classifier.bias)
