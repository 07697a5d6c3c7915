"""MobileNetV1: a convolution and thirteen pairs of a depthwise and a pointwise one (Howard et al. 2017, arXiv 1704.04861).

Keys of the state dict as in mdistiller and in the checkpoints of the benchmark: `model.0.0.weight` … `model.13.4.bias`, `fc.weight`.
Its average over 7×7 is one over the whole map here, so that images of any size from 32 pixels can be taken.
"""

from __future__ import annotations

from torch import Tensor, nn

from distillctl import Options

_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
"""Output channels and stride of the pairs."""


class MobileNetV1(nn.Module):
    """(B, 3, H, W) → logits (B, num_classes)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        inputs, blocks = 32, [nn.Sequential(*_normed(nn.Conv2d(3, 32, 3, 2, 1, bias=False)))]
        for outputs, stride in _BLOCKS:
            depthwise = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
            blocks.append(nn.Sequential(*_normed(depthwise), *_normed(nn.Conv2d(inputs, outputs, 1, bias=False))))
            inputs = outputs
        self.model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1))
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.fc(self.model(images).flatten(1))
        return logits


def _normed(convolution: nn.Conv2d) -> tuple[nn.Module, nn.Module, nn.Module]:
    return convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()


def build(_name: str, num_classes: int, _options: Options) -> nn.Module:
    """MobileNetV1 with fresh weights, drawn as PyTorch draws them."""
    return MobileNetV1(num_classes)
