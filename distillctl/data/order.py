"""In which order an epoch goes through the training images, and how it is cut into batches."""

from __future__ import annotations

import torch
from torch import Tensor

from distillctl.data.hashing import ORDER, hash_index


def epoch_order(count: int, seed: int, epoch: int, device: torch.device) -> Tensor:
    """A permutation of 0 … count − 1 that depends on seed and epoch alone: int64, (count,), on the device.

    Sorting random keys needs no generator, no copy from the host, and gives the same order on every device.
    """
    keys = hash_index(torch.arange(count, device=device), seed, epoch, ORDER)
    return keys.argsort(stable=True)


def batch_bounds(count: int, batch_size: int, *, merge_single: bool) -> list[tuple[int, int]]:
    """Start and end of every batch. Nothing is dropped; the last batch may be short.

    merge_single: add a last batch of one image to the batch before it, since BatchNorm cannot train on one value.
    """
    starts = list(range(0, count, batch_size))
    bounds = [(start, min(start + batch_size, count)) for start in starts]
    if merge_single and batch_size > 1 and len(bounds) > 1 and bounds[-1][1] - bounds[-1][0] == 1:
        bounds[-2:] = [(bounds[-2][0], count)]
    return bounds
