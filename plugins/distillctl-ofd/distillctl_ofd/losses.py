"""The margins and the distance of `ofd`, as functions of tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_RARE = 1e-3
"""Where negative values are rarer than this, their mean is replaced by −3 standard deviations."""
_SMALLEST = 1e-12
"""Stands for |γ| = 0: a channel that is constant."""


def negative_means(gamma: Tensor, beta: Tensor) -> Tensor:
    """The margin of each channel: what a value from N(β, γ²) is on average where it is negative; (C,), float64, never positive.

    m = β − |γ| · φ(β/γ) / Φ(−β/|γ|) where Φ(−β/|γ|) > 0.001, and −3 |γ| otherwise. A channel with γ = 0 is constant: β if that is
    negative, else 0.

    gamma, beta: weight and bias (C,) of a batch normalisation.
    """
    scale, mean = gamma.double().abs().clamp_min(_SMALLEST), beta.double()
    ratio = mean / scale
    # The quotient of density and probability from their logarithms: far below zero, both underflow.
    log_density = -ratio.square() / 2 - math.log(2 * math.pi) / 2
    log_probability = torch.special.log_ndtr(-ratio)
    truncated = mean - scale * (log_density - log_probability).exp()
    return torch.where(log_probability > math.log(_RARE), truncated, -3 * scale)


def partial_distance(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """mean_B Σ_{c,h,w} (s − t')² · 1[s > t' or t > 0] with t' = max(t, m_c); 0-dim.

    student, teacher: maps (B, C, H, W) of one shape. margin: (C,), not positive.
    """
    target = torch.maximum(teacher, margin.to(teacher.dtype)[:, None, None])
    counts = (student > target) | (teacher > 0)
    return ((student - target).square() * counts).sum() / len(student)


def ofd_loss(students: Sequence[Tensor], teachers: Sequence[Tensor], margins: Sequence[Tensor]) -> Tensor:
    """Σ_i 2^(i−n) · `partial_distance` of the n stages, shallow to deep (i = 1 … n): the deepest counts fully; 0-dim."""
    terms = [partial_distance(*stage) for stage in zip(students, teachers, margins, strict=True)]
    return torch.stack([term / 2 ** (len(terms) - i) for i, term in enumerate(terms, 1)]).sum()
