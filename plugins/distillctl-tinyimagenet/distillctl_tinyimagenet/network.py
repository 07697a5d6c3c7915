"""MobileNetV2 for 64×64 pixels, the student of published runs on Tiny-ImageNet (Sandler et al. 2018, arXiv 1801.04381).

Against the network for 224 pixels: a 1×1 stem of stride 1 with a padding of 1, which makes 66×66 of 64×64, three steps of stride 2
instead of five, and convolutions with a bias. Blocks end in a linear bottleneck: there is no ReLU, hence no pre-activation.
"""

from __future__ import annotations

from torch import Tensor, nn

from distillctl import Options

_SETTINGS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 1), (6, 320, 1, 1))
"""Expansion, channels, blocks, stride of the first block."""
_STEM, _FEATURES = 32, 1280


class Bottleneck(nn.Module):
    """1×1 expansion, 3×3 depthwise, 1×1 linear; added to its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.layers = nn.Sequential(
            *_convolution(inputs, hidden, 1),
            nn.ReLU6(),
            *_convolution(hidden, hidden, 3, stride=stride, padding=1, groups=hidden),
            nn.ReLU6(),
            *_convolution(hidden, outputs, 1),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H/stride, W/stride), not activated."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """(B, 3, H, W) → logits (B, num_classes)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_convolution(3, _STEM, 1, padding=1), nn.ReLU6())
        rows, channels = [], _STEM
        for expansion, outputs, repeats, stride in _SETTINGS:
            row = [Bottleneck(channels, outputs, stride, expansion)]
            row += [Bottleneck(outputs, outputs, 1, expansion) for _ in range(repeats - 1)]
            rows.append(nn.Sequential(*row))
            channels = outputs
        self.rows = nn.Sequential(*rows)
        self.last = nn.Sequential(*_convolution(channels, _FEATURES, 1), nn.ReLU6())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(_FEATURES, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.classifier(self.pool(self.last(self.rows(self.stem(images)))).flatten(1))
        return logits


def _convolution(inputs: int, outputs: int, size: int, *, stride: int = 1, padding: int = 0, groups: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, size, stride, padding, groups=groups), nn.BatchNorm2d(outputs)]


def build(_name: str, num_classes: int, _options: Options) -> nn.Module:
    """MobileNetV2 for small images with fresh weights, drawn as PyTorch draws them."""
    return MobileNetV2(num_classes)
