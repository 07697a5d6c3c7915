"""From uint8 pixels to what a network takes, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from distillctl.api.data import Splits


class Normalise:
    """x ↦ (x/255 − mean) / std for uint8 pixels, as one multiplication and one addition in float32.

    mean, std: one number a channel, for images scaled to [0, 1].
    channels_last: memory format of what comes out.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device, *, channels_last: bool = False) -> None:
        m, s = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        self._scale = (1 / (255 * s)).to(device, torch.float32)
        self._shift = (-m / s).to(device, torch.float32)
        self._channels_last = channels_last

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) or (B, V, C, H, W) uint8 with any strides → float32 of the same shape."""
        if images.ndim == 5:
            flat = self(images.flatten(0, 1))
            return flat.view(images.shape[0], images.shape[1], *flat.shape[1:])
        if not self._channels_last:
            planes = images.to(torch.float32, memory_format=torch.contiguous_format)
            return planes.mul_(self._scale.view(1, -1, 1, 1)).add_(self._shift.view(1, -1, 1, 1))
        # Rows of W·C values with the factors repeated: broadcasting over an innermost dimension of three is six times slower.
        b, c, h, w = images.shape
        rows = images.permute(0, 2, 3, 1).to(torch.float32, memory_format=torch.contiguous_format).view(b, h, w * c)
        rows.mul_(self._scale.repeat(w)).add_(self._shift.repeat(w))
        return rows.view(b, h, w, c).permute(0, 3, 1, 2)


def unnormalised(data: Splits) -> Splits:
    """Data whose normalised images are the pixels themselves, from 0 to 255."""
    return replace(data, mean=(0.0,) * data.channels, std=(1 / 255,) * data.channels)
