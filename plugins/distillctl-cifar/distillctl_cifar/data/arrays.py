"""What all sources give: both published splits in memory."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

SIDE = 32  # pixels


@dataclass(frozen=True)
class Arrays:
    """A whole data set.

    train_images, test_images: uint8, (N, 32, 32, 3). train_labels, test_labels: int64, (N,).
    classes: names in the order of the labels.
    source: where it comes from, for the run directory.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    source: str
