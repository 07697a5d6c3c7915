"""The Gaussian bound of one pair of maps, and how its variance is parametrised."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


def gaussian_loss(mean: Tensor, target: Tensor, variance: Tensor) -> Tensor:
    """Mean over all elements of ½((μ − t)²/σ² + log σ²), 0-dim: −log N(t; μ, σ²) without its constant.

    mean, target: μ, t (B, C, H, W). variance: σ² of each channel, (C,), positive.
    """
    errors = (mean - target).square().mean((0, 2, 3))  # (C,)
    return (errors / variance + variance.log()).mean() / 2


def variance_of(rho: Tensor, eps: float) -> Tensor:
    """σ² = softplus(ρ) + eps, of the shape of ρ: above eps whatever ρ is, and without overflow."""
    return F.softplus(rho) + eps


def rho_of(variance: float, eps: float) -> float:
    """The ρ that gives this variance, which is larger than eps."""
    excess = variance - eps
    return excess + math.log(-math.expm1(-excess))
