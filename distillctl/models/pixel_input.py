"""A network that takes pixels as they lie in an image: what has to be known of the normalisation is inside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PixelInput(nn.Module):
    """Pixels, (B, C, H, W) with values 0 … 255 → (x/255 − mean) / std → the network.

    The arithmetic is that of `distillctl.data.pixels.Normalise`, so that answers have the same bits.

    mean, std: one number a channel, for images scaled to [0, 1].
    """

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        m, s = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        self.network = network
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", (1 / (255 * s)).float().view(1, -1, 1, 1))
        self.register_buffer("shift", (-m / s).float().view(1, -1, 1, 1))
        self.training = network.training  # not `self.train`, which programs of torch.export refuse

    def forward(self, pixels: Tensor) -> Tensor:
        answers: Tensor = self.network(pixels.float() * self.scale + self.shift)
        return answers
