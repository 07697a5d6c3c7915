"""The loss from the features of both sides."""

from __future__ import annotations

import torch
from torch import Tensor

_SHORTEST = 1e-12  # features below are left as they are: dividing would turn their gradient into 10¹²


def pkt_loss(student: Tensor, teacher: Tensor, eps: float = 1e-7) -> Tensor:
    """Mean over B² of P_t · log((P_t + eps)/(P_s + eps)) with P = `affinities(p)`, 0-dim; exactly 0 for a batch of one sample.

    student, teacher: p (B, …), of any two shapes behind the batch dimension.
    """
    p_s, p_t = affinities(student), affinities(teacher)
    return (p_t * ((p_t + eps).log() - (p_s + eps).log())).mean()


def affinities(features: Tensor) -> Tensor:
    """(cos(p_i, p_j) + 1)/2 of features (B, …), flattened to (B, d), divided by the sum of each row: (B, B).

    The cosine with a feature of zeros is 0.
    """
    rows = unit_rows(features.flatten(1))
    # Rounding can push a cosine below −1, where the logarithm would have no value.
    similarity = ((rows @ rows.T + 1) / 2).clamp_min(0)
    return similarity / similarity.sum(1, keepdim=True).clamp_min(_SHORTEST)


def unit_rows(matrix: Tensor) -> Tensor:
    """A matrix (B, d) whose rows have the length 1, except those of zeros."""
    squares = matrix.square().sum(1, keepdim=True)
    return matrix / torch.where(squares > _SHORTEST**2, squares, 1.0).sqrt()
