"""The loss of either variant from the embeddings of both sides."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from distillctl import unit_rows

_EPS = 1e-12  # beside a squared norm, whose root has no gradient at 0


def neighbour_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over i < B of Σ_c δ_i,c · δ_{i+1},c with δ = |e_s − e_t|, 0-dim; 0 for a batch of one sample.

    student, teacher: e (B, d).
    """
    if len(student) < 2:
        return (student - teacher).sum() * 0
    delta = (student - teacher).abs()
    return (delta[:-1] * delta[1:]).sum(1).mean()


def kernel_loss(student: Tensor, teacher: Tensor, gamma: float = 0.4, order: int = 2, *, squared: bool = True) -> Tensor:
    """1/B² · ‖K_s − K_t‖²_F with K = `kernel_matrix(e)`, 0-dim; without `squared` 1/B² · ‖K_s − K_t‖_F. 0 for a batch of one sample.

    student, teacher: e (B, d_s), (B, d_t).
    """
    size = len(student)
    if size < 2:
        return (student.sum() + teacher.sum()) * 0
    total = (kernel_matrix(student, gamma, order) - kernel_matrix(teacher, gamma, order)).square().sum()
    return (total if squared else (total + _EPS).sqrt()) / size**2


def kernel_matrix(embeddings: Tensor, gamma: float = 0.4, order: int = 2) -> Tensor:
    """exp(−2γ) · Σ_{p ≤ order} (2γ)^p/p! · ⟨x_i, x_j⟩^p for embeddings (B, d) divided by their lengths: (B, B).

    With all powers it would be exp(−γ‖x_i − x_j‖²). An embedding of zeros stays zero.
    """
    rows = unit_rows(embeddings)
    scaled = 2 * gamma * (rows @ rows.T)
    series = torch.ones_like(scaled)
    for power in range(order, 0, -1):  # Horner's scheme: 1 + x/1 · (1 + x/2 · (1 + …))
        series = 1 + scaled / power * series
    return math.exp(-2 * gamma) * series
