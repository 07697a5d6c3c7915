"""The loss from the outputs of the projectors."""

from __future__ import annotations

from torch import Tensor

from distillctl import unit_rows


def ensemble_loss(projected: Tensor, target: Tensor) -> Tensor:
    """mean_B (1 − cos(h, p_t)) with h = 1/q · Σ_k ReLU(u_k), 0-dim.

    projected: u (B, q, d), what the linear layers of the projectors give. target: p_t (B, d).
    A sample whose h or p_t is zero counts 1.
    """
    return (1 - cosine(projected.relu().mean(1), target)).mean()


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """The cosine of the rows of two matrices (B, d): (B,), 0 where one of the rows is zero."""
    return (unit_rows(a) * unit_rows(b)).sum(1)
