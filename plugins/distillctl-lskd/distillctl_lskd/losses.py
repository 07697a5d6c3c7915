"""The Z-score of logits."""

from __future__ import annotations

from torch import Tensor

EPS = 1e-6
"""Added to the variance. It bounds the gradient by 1/√EPS = 1000 times that of the standardised logits."""


def standardise(logits: Tensor, eps: float = EPS) -> Tensor:
    """(z − mean z) / √(var z + eps) of each row, with the unbiased variance (divided by C − 1).

    logits: (..., C) with C ≥ 2, float32 or float64. A constant row becomes zeros, with a finite gradient.
    """
    centred = logits - logits.mean(-1, keepdim=True)
    variance = centred.square().sum(-1, keepdim=True) / (logits.shape[-1] - 1)
    return centred * (variance + eps).rsqrt()
