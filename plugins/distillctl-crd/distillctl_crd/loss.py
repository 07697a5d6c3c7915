"""Noise contrastive estimation with a normaliser Z, from logarithms: nothing is exponentiated that could overflow.

    o = exp(x)/Z;   ℓ = −1/B · Σ_b [ log(o_0/(o_0 + c)) + Σ_k log((K/N)/(o_k + c)) ],   c = K/N + 10⁻⁷

x_0 → `positive` (B,), x_k → `negatives` (B, K), both already divided by the temperature; log Z → `log_z`; N → `count`.
With a = x − log Z − log c the two logarithms are −softplus(−a_0) and −softplus(a_k) − log(c·N/K).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_EPS = 1e-7


def nce(positive: Tensor, negatives: Tensor, log_z: Tensor, count: int) -> Tensor:
    """ℓ above, 0-dim: sum over the positive and the K negatives, mean over B.

    positive: (B,). negatives: (B, K). log_z: 0-dim. count: images in the bank.
    """
    share = negatives.shape[1] / count  # K·P_n
    shift = log_z + math.log(share + _EPS)
    total = _softplus(shift - positive).sum() + _softplus(negatives - shift).sum()
    return total / len(positive) + negatives.shape[1] * math.log1p(_EPS / share)


def log_normaliser(positive: Tensor, negatives: Tensor, count: int) -> Tensor:
    """The logarithm of Z = N · mean(exp(x)) over all positives (B,) and negatives (B, K): 0-dim, without gradient."""
    with torch.no_grad():
        total = torch.logaddexp(positive.logsumexp(0), negatives.logsumexp((0, 1)))
        return total + math.log(count / (positive.numel() + negatives.numel()))


def log_normaliser_of_rows(rows: Tensor, scores: int, count: int) -> Tensor:
    """The same from the logarithms of each image's Σ exp(x), (B, …), over the images; `scores` is K + 1. Keeps what stands behind B."""
    return rows.logsumexp(0) + math.log(count / (len(rows) * scores))


def _softplus(x: Tensor) -> Tensor:
    # Above its default threshold of 20, PyTorch takes x itself, which is not exact enough for float64.
    return F.softplus(x, threshold=40)
