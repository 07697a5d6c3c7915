"""The regressor: predicts the channels of the teacher's map from the student's."""

from __future__ import annotations

from torch import nn


def regressor(channels: int, wanted: int) -> nn.Sequential:
    """Three 1×1 convolutions without bias, ReLUs between them: (B, channels, H, W) → (B, wanted, H, W)."""
    return nn.Sequential(
        nn.Conv2d(channels, wanted, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(wanted, wanted, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(wanted, wanted, 1, bias=False),
    )
