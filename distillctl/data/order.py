"""In which order an epoch goes through the training images, how it is cut into batches, and a batch among processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from distillctl.data.hashing import ORDER, hash_index

T = TypeVar("T", Tensor, list[int])


def epoch_order(count: int, seed: int, epoch: int, device: torch.device) -> Tensor:
    """A permutation of 0 … count − 1 that depends on seed and epoch alone: int64, (count,), on the device.

    Sorting random keys needs no generator, no copy from the host, and gives the same order on every device.
    """
    keys = hash_index(torch.arange(count, device=device), seed, epoch, ORDER)
    return keys.argsort(stable=True)


def batch_bounds(count: int, batch_size: int, *, smallest: int = 1) -> list[tuple[int, int]]:
    """Start and end of every batch. Nothing is dropped; the last batch may be short.

    smallest: a last batch of fewer images joins the one before it. Training needs two for every process, since BatchNorm cannot
        train on one value.
    """
    starts = list(range(0, count, batch_size))
    bounds = [(start, min(start + batch_size, count)) for start in starts]
    if batch_size > 1 and len(bounds) > 1 and bounds[-1][1] - bounds[-1][0] < smallest:
        bounds[-2:] = [(bounds[-2][0], count)]
    return bounds


class Piece(NamedTuple):
    """The rows of a batch that one process computes at one time.

    start, end: in the batch. before: rows of lower processes at that time. total: rows of all processes at that time.
    """

    start: int
    end: int
    before: int
    total: int


@dataclass(frozen=True)
class Share:
    """What one process takes of every batch.

    parts: a batch is computed in so many parts, one after the other.
    """

    rank: int = 0
    processes: int = 1
    parts: int = 1

    def pieces(self, count: int) -> list[Piece]:
        """Its pieces of a batch of `count` images: one for each part. Sizes differ by one at most.

        A short batch is cut into fewer parts, so that every piece has two images.
        """
        parts = max(1, min(self.parts, count // (2 * self.processes)))
        result = []
        for part in range(parts):
            start, end = _piece(count, parts, part)
            first, last = _piece(end - start, self.processes, self.rank)
            result.append(Piece(start + first, start + last, first, end - start))
        return result

    def rows(self, batch: T) -> T:
        """Its rows of a whole batch: of a tensor's first dimension, or of a list."""
        pieces = self.pieces(len(batch))
        if len(pieces) == self.processes == 1:
            return batch
        parts = [batch[piece.start : piece.end] for piece in pieces]
        return torch.cat(parts) if isinstance(batch, Tensor) else [row for part in parts for row in part]


WHOLE = Share()
"""Of a process that trains alone."""


def _piece(count: int, pieces: int, number: int) -> tuple[int, int]:
    """Start and end of a piece; the first ones are larger by one if it does not come out even."""
    size, longer = divmod(count, pieces)
    start = number * size + min(number, longer)
    return start, start + size + (number < longer)
