"""The hierarchical context loss: two maps are compared as they are, and as averages over coarser and coarser grids."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from distillctl import pool_average

_GRIDS = (4, 2, 1)


def context_weights(height: int, width: int) -> tuple[float, dict[int, float]]:
    """The weight of a map of this size itself, and those of its averages over l×l cells, by l; together they are 1.

    Grids that are not smaller than the map in both directions are left out. Each weight is half of the one before it.
    """
    grids = [size for size in _GRIDS if size < min(height, width)]
    raw = [0.5**k for k in range(len(grids) + 1)]
    whole, *coarse = (value / sum(raw) for value in raw)
    return whole, dict(zip(grids, coarse, strict=True))


def hcl(student: Tensor, teacher: Tensor) -> Tensor:
    """Σ_l w_l · mean (pool_l(f_s) − pool_l(f_t))² of two maps (B, C, H, W) of one shape, 0-dim; w as in `context_weights`.

    Averages are linear, so the difference is pooled and not either map.
    """
    difference = student - teacher
    whole, coarse = context_weights(difference.shape[2], difference.shape[3])
    loss = whole * difference.square().mean()
    for size, weight in coarse.items():
        loss = loss + weight * pool_average(difference, (size, size)).square().mean()
    return loss


def review_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Σ of `hcl` over levels, 0-dim."""
    first, *rest = (hcl(a, b) for a, b in zip(student, teacher, strict=True))
    return sum(rest, start=first)
