"""What the engine sees of the data: loaders that yield `Batch`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

from distillctl.api.method import Batch
from distillctl.data.order import Share

Tta = Literal["", "flip", "five_crop", "ten_crop"]
"""Views of test-time augmentation: none, the image and its mirror image, or five crops, without or with their mirror images."""

Workers = int | Literal["auto"]


class TrainLoader(Protocol):
    """Training batches.

    steps: batches in an epoch. The last batch may be short, nothing is dropped; a last batch that is too short for the processes
        is merged into the one before it.
    share: which rows of every batch this process gets.
    """

    steps: int
    share: Share

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, counted from 0, from batch `first` on.

        The order depends on seed and epoch, a view on seed, epoch and index. `Batch.total` counts the rows of all processes.
        """

    def close(self) -> None:
        """Ends worker processes; the loader cannot be used afterwards."""


class EvalLoader(Protocol):
    """This process's evaluation batches in a fixed order, with images (B, C, H, W), or (B, V, C, H, W) with V views of each.

    `Batch.targets` are those of the first view; of `flip`, the second is its mirror image.
    count: images in all, of all processes.
    """

    count: int

    def __iter__(self) -> Iterator[Batch]: ...

    def close(self) -> None:
        """Ends worker processes; the loader cannot be used afterwards."""
