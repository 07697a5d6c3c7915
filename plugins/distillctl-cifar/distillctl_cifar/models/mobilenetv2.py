"""MobileNetV2 at half width for small images (Sandler et al. 2018, arXiv 1801.04381).

The variant of the distillation benchmarks: expansion 6, width 0.5, a stem of stride 2, ReLU instead of ReLU6, 1280 features
at the end that the width does not scale. Keys of the state dict as in RepDistiller and mdistiller. Blocks end in a linear
bottleneck: there is no ReLU, hence no pre-activation.
"""

from __future__ import annotations

from torch import Tensor, nn

from distillctl_cifar.models.layers import conv1x1, conv3x3, init_classifier, init_convolutions

_SETTINGS = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels at full width, blocks, stride of the first block."""
_WIDTH = 0.5
_FEATURES = 1280


class InvertedResidual(nn.Module):
    """1×1 expansion, 3×3 depthwise, 1×1 linear; added to its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.conv = nn.Sequential(
            conv1x1(inputs, hidden),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            conv3x3(hidden, hidden, stride, groups=hidden),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            conv1x1(hidden, outputs),
            nn.BatchNorm2d(outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H/stride, W/stride), not activated."""
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


class MobileNetV2Half(nn.Module):
    """(B, 3, H, W) → logits (B, num_classes)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        channels = int(32 * _WIDTH)
        self.conv1 = nn.Sequential(conv3x3(3, channels, 2), nn.BatchNorm2d(channels), nn.ReLU())
        self.blocks = nn.ModuleList()
        for expansion, full, repeats, stride in _SETTINGS:
            outputs = int(full * _WIDTH)
            row = [InvertedResidual(channels, outputs, stride, expansion)]
            row += [InvertedResidual(outputs, outputs, 1, expansion) for _ in range(repeats - 1)]
            self.blocks.append(nn.Sequential(*row))
            channels = outputs
        self.conv2 = nn.Sequential(conv1x1(channels, _FEATURES), nn.BatchNorm2d(_FEATURES), nn.ReLU())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        classifier = nn.Linear(_FEATURES, num_classes)
        self.classifier = nn.Sequential(classifier)
        init_convolutions(self)
        init_classifier(classifier)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        x = self.conv1(images)
        for row in self.blocks:
            x = row(x)
        logits: Tensor = self.classifier(self.avgpool(self.conv2(x)).flatten(1))
        return logits


def MobileNetV2(num_classes: int = 100) -> MobileNetV2Half:  # noqa: N802 - the name that everybody uses
    """Expansion 6, width 0.5."""
    return MobileNetV2Half(num_classes)
