"""The matrices of a network's flow, and the distance of two of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distillctl import match_size, pool_maximum

Pool = Literal["average", "max"]


def fsp_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], pool: Pool = "average") -> Tensor:
    """Σ over neighbouring maps of the mean squared difference of their matrices, 0-dim; the mean is over the batch and both channels.

    student, teacher: equally many maps (B, C_i, ·, ·), at least two, shallow to deep. Map i has the same C_i on both sides; heights and
    widths may differ.
    """
    pairs = zip(flow(student, pool), flow(teacher, pool), strict=True)
    return torch.stack([F.mse_loss(ours, theirs) for ours, theirs in pairs]).sum()


def flow(maps: Sequence[Tensor], pool: Pool) -> list[Tensor]:
    """The matrix of each two neighbours; one fewer than there are maps."""
    return [fsp_matrix(bottom, top, pool) for bottom, top in pairwise(maps)]


def fsp_matrix(bottom: Tensor, top: Tensor, pool: Pool) -> Tensor:
    """Mean over the positions of the products of each channel of `top` with each of `bottom`.

    (B, C, ·, ·), (B, D, ·, ·) → (B, D, C). The larger map is pooled to the height and width of the smaller.
    """
    bottom, top = match_size(bottom, top) if pool == "average" else _match_size_by_maxima(bottom, top)
    a, b = bottom.flatten(2), top.flatten(2)
    return torch.bmm(b, a.transpose(1, 2)) / a.shape[2]


def _match_size_by_maxima(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    size = (min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3]))
    first, second = (x if x.shape[2:] == size else pool_maximum(x, size) for x in (a, b))
    return first, second
