"""The memory bank: one embedding for every training image, moved towards the newest one after each step."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def new_bank(count: int, dim: int) -> Tensor:
    """A bank (count, dim), uniform in ±1/√(dim/3): rows have a length near 1."""
    return (2 * torch.rand(count, dim) - 1) / math.sqrt(dim / 3)


def move_rows(bank: Tensor, index: Tensor, v: Tensor, momentum: float) -> None:
    """Row ← N(momentum · row + (1 − momentum) · v) for the rows `index`, in place; N makes the length 1.

    bank: (N, d). index: int64, (B,). v: (B, d), normalised. An image that is twice in the batch takes its last embedding,
    on every device and with any number of threads.
    """
    rows = momentum * bank[index] + (1 - momentum) * v[last_of_each(index)]
    bank.index_copy_(0, index, F.normalize(rows, dim=1).to(bank.dtype))


def last_of_each(index: Tensor) -> Tensor:
    """For every element of int64 (B,), the position of the last element equal to it: [3, 1, 3] → [2, 1, 2]."""
    ordered, position = index.sort(stable=True)
    return position[torch.searchsorted(ordered, index, right=True) - 1]
