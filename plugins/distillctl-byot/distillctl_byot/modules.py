"""An exit: from the feature map of a shallow stage to features like those of the whole network, and on to logits."""

from __future__ import annotations

from torch import Tensor, nn

from distillctl import LenientBatchNorm2d


class Exit(nn.Module):
    """Bottleneck of three convolutions, each with normalisation and ReLU, average over the positions, linear layer.

    The first convolution (1×1) takes `width`/4 channels; the second has patches that do not overlap, of such a size that the map becomes
    about as small as the deepest stage's; the third (1×1) gives `width` channels. None has a bias: the normalisation would
    subtract it.

    shape: (C, H, W) of the stage.
    deepest: (H, W) of the deepest stage.
    width: number of features.
    kaiming: draw the convolutions from He's normal distribution by fan-out; otherwise by PyTorch's default.
    """

    def __init__(
        self, shape: tuple[int, int, int], deepest: tuple[int, int], width: int, num_classes: int, *, kaiming: bool = False
    ) -> None:
        super().__init__()
        channels, height, across = shape
        patch = (max(1, height // deepest[0]), max(1, across // deepest[1]))
        middle = max(1, width // 4)
        self.bottleneck = nn.Sequential(
            nn.Conv2d(channels, middle, 1, bias=False),
            LenientBatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, middle, patch, stride=patch, bias=False),
            LenientBatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, width, 1, bias=False),
            LenientBatchNorm2d(width),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(width, num_classes)
        for module in self.bottleneck if kaiming else ():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) → features (B, width) and logits (B, num_classes)."""
        features = self.bottleneck(maps).mean((2, 3))
        return features, self.classifier(features)
