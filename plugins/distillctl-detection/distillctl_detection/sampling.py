"""Which anchors and proposals are learnt from: as torchvision draws them, with a generator for each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler  # type: ignore[import-untyped]


class SeededSampler(BalancedPositiveNegativeSampler):  # type: ignore[misc]
    """torchvision's draws from the global generator, so that what an image is given depends on the images before it in the batch. Here it
    depends on the image's seed: pieces of a batch and several processes agree.

    seeds: for the next call, one for each image. stream: tells samplers of one detector apart.
    """

    def __init__(self, batch_size_per_image: int, positive_fraction: float, stream: int) -> None:
        super().__init__(batch_size_per_image, positive_fraction)
        self.seeds: Sequence[int] = ()
        self._stream = stream

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Labels of the candidates of each image (-1 ignored, 0 background, others objects) → masks (uint8) of the drawn objects, and of
        the drawn background.
        """
        positive, negative = [], []
        for labels, seed in zip(matched_idxs, self.seeds, strict=True):
            draw = torch.Generator().manual_seed((seed + self._stream) % 2**63)
            objects, background = torch.where(labels >= 1)[0], torch.where(labels == 0)[0]
            most = min(len(objects), int(self.batch_size_per_image * self.positive_fraction))
            positive.append(_mask(labels, objects, most, draw))
            negative.append(_mask(labels, background, min(len(background), self.batch_size_per_image - most), draw))
        return positive, negative


def _mask(labels: Tensor, candidates: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """1 for so many of the candidates."""
    mask = torch.zeros_like(labels, dtype=torch.uint8)
    mask[candidates[torch.randperm(len(candidates), generator=draw)[:count].to(candidates.device)]] = 1
    return mask
