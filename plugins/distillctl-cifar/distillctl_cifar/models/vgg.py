"""VGG with BN and without hidden fully connected layers (Simonyan, Zisserman 2015, arXiv 1409.1556).

Keys of the state dict as in RepDistiller and mdistiller: the five blocks end in BN, and the ReLU after a block is a module
beside it. `vgg8` has one convolution a block. The pool after `block3` is left out for images under 64 pixels, where it would
leave maps of 2×2; the peers use it at exactly 64 pixels, here it is used from 64 pixels on.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from distillctl_cifar.models.layers import init_classifier, init_convolutions

_POOL3_FROM = 64  # pixels


class VGG(nn.Module):
    """(B, 3, H, W) → logits (B, num_classes). `convolutions`: how many each of the five blocks has."""

    def __init__(self, convolutions: tuple[int, int, int, int, int], num_classes: int) -> None:
        super().__init__()
        self.block0 = _block(3, 64, convolutions[0])
        self.relu0 = nn.ReLU()
        self.pool0 = nn.MaxPool2d(2)
        self.block1 = _block(64, 128, convolutions[1])
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.block2 = _block(128, 256, convolutions[2])
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.block3 = _block(256, 512, convolutions[3])
        self.relu3 = nn.ReLU()
        self.pool3 = nn.MaxPool2d(2)
        self.block4 = _block(512, 512, convolutions[4])
        self.relu4 = nn.ReLU()
        self.pool4 = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(512, num_classes)
        init_convolutions(self)
        init_classifier(self.classifier)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        x = self.pool0(self.relu0(self.block0(images)))
        x = self.pool1(self.relu1(self.block1(x)))
        x = self.pool2(self.relu2(self.block2(x)))
        x = self.relu3(self.block3(x))
        if images.shape[2] >= _POOL3_FROM:
            x = self.pool3(x)
        x = self.relu4(self.block4(x))
        logits: Tensor = self.classifier(self.pool4(x).flatten(1))
        return logits


def _block(inputs: int, outputs: int, convolutions: int) -> nn.Sequential:
    """Conv (with bias), BN, ReLU, repeated; without the last ReLU."""
    layers: list[nn.Module] = []
    for first, second in itertools.pairwise([inputs] + [outputs] * convolutions):
        layers += [nn.Conv2d(first, second, 3, padding=1), nn.BatchNorm2d(second), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def vgg8(num_classes: int = 100) -> VGG:
    """5 convolutions."""
    return VGG((1, 1, 1, 1, 1), num_classes)


def vgg11(num_classes: int = 100) -> VGG:
    """8 convolutions (configuration A)."""
    return VGG((1, 1, 2, 2, 2), num_classes)


def vgg13(num_classes: int = 100) -> VGG:
    """10 convolutions (configuration B)."""
    return VGG((2, 2, 2, 2, 2), num_classes)


def vgg16(num_classes: int = 100) -> VGG:
    """13 convolutions (configuration D)."""
    return VGG((2, 2, 3, 3, 3), num_classes)


def vgg19(num_classes: int = 100) -> VGG:
    """16 convolutions (configuration E)."""
    return VGG((2, 2, 4, 4, 4), num_classes)
