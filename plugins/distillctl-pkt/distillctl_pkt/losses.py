"""The loss from the features of both sides."""

from __future__ import annotations

from torch import Tensor

from distillctl import unit_rows


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
    return similarity / similarity.sum(1, keepdim=True)  # at least ½, from the diagonal
