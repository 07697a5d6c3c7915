"""Regions of a map, their logits, and the loss over all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Rows = Callable[[Tensor, Tensor, Tensor, Tensor | float], Tensor]
"""Logits of student and teacher (N, C), labels (N,) and a temperature → the loss of each row, (N,)."""


def regional_vectors(maps: Tensor, pooled: Tensor, scales: Sequence[int]) -> Tensor:
    """What the classifier is given for each region, (B, R, d), R = Σ s²; the whole map comes first.

    maps: (B, d, H, W); pooled: (B, d), their average as the classifier receives it, which is scale 1; scales: with 1, each a
    divisor of the largest. The finest grid is averaged from the map, and the coarser ones from the finest.
    """
    vectors = [pooled.unsqueeze(1)]
    local = sorted(scales, reverse=True)[:-1]
    if local:
        finest = F.adaptive_avg_pool2d(maps, local[0])
        vectors += [(finest if scale == local[0] else F.adaptive_avg_pool2d(finest, scale)).flatten(2).mT for scale in local]
    return torch.cat(vectors, 1)


def is_complementary(teacher: Tensor, labels: Tensor) -> Tensor:
    """(B, R), true where the teacher is right on the region or on the whole map, the first region, but not on both."""
    right = teacher.argmax(-1) == labels.unsqueeze(1)
    return right != right[:, :1]


def sdd_parts(student: Tensor, teacher: Tensor, labels: Tensor, temperature: Tensor | float, rows: Rows) -> tuple[Tensor, Tensor]:
    """Σ ℓ / (B·R) over the consistent and over the complementary regions, both 0-dim and without their weights.

    student, teacher: regional logits (B, R, C), the whole map first; labels: (B,); temperature: a number, a 0-dim tensor or (B, 1).
    Nothing that is not finite is replaced: it makes one of the two parts infinite or NaN.
    """
    size, regions, _ = teacher.shape
    if isinstance(temperature, Tensor) and temperature.ndim:
        temperature = temperature.expand(size, regions).reshape(-1, 1)
    repeated = labels.unsqueeze(1).expand(size, regions).flatten()
    losses = rows(student.flatten(0, 1), teacher.flatten(0, 1), repeated, temperature).unflatten(0, (size, regions))
    complementary = is_complementary(teacher, labels)
    return losses.masked_fill(complementary, 0.0).mean(), losses.masked_fill(~complementary, 0.0).mean()


def sdd_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: Tensor | float, rows: Rows, complementary_weight: float = 2.0
) -> Tensor:
    """Σ w·ℓ / (B·R), 0-dim; w is `complementary_weight` for complementary regions and 1 for all others. Arguments as in `sdd_parts`."""
    consistent, complementary = sdd_parts(student, teacher, labels, temperature, rows)
    return consistent + complementary_weight * complementary
