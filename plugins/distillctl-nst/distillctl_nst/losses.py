"""How far two sets of channel patterns are from each other, without a tensor that has two dimensions of channels and one of positions."""

from __future__ import annotations

import torch
from torch import Tensor

from distillctl import match_size

_DEAD = 1e-6
_NARROWEST = 1e-4  # bounds the gradient where the patterns of an image are all but equal


def nst_loss(student: Tensor, teacher: Tensor, *, kernel: str = "poly", bandwidth: float | None = None) -> Tensor:
    """Squared maximum mean discrepancy of the patterns of one pair of stages, mean over the batch, 0-dim and never below 0.

    student, teacher: (B, C_s, H_s, W_s) and (B, C_t, H_t, W_t); the larger map is average-pooled to the smaller size first.
    kernel: `poly`, `linear` or `rbf`. bandwidth: σ² of `rbf`; None means the mean of ‖s_i − t_j‖² of each image, without a gradient.
    """
    smaller, target = match_size(student, teacher)
    s, t = patterns(smaller), patterns(target)
    if kernel == "linear":
        return (s.mean(1) - t.mean(1)).square().sum(1).mean()
    if kernel == "rbf":
        return _gaussian(s, t, bandwidth)
    if s.shape[2] <= max(s.shape[1], t.shape[1]):
        return (_second_moment(s) - _second_moment(t)).square().sum((1, 2)).mean()
    means = [(a @ b.mT).square().mean() for a, b in ((s, s), (t, t), (s, t))]
    return _discrepancy(*means)


def patterns(features: Tensor) -> Tensor:
    """Each channel of maps (B, C, H, W) as a vector of length 1 over the positions, (B, C, H·W).

    Channels with a norm below 1e-6 are dead: they become 0 and get no gradient, which would be that of a vector without a direction.
    """
    rows = features.flatten(2)
    norms = torch.linalg.vector_norm(rows, dim=2, keepdim=True)
    alive = norms > _DEAD
    return torch.where(alive, rows / torch.where(alive, norms, 1.0), 0.0)


def _second_moment(rows: Tensor) -> Tensor:
    """1/C · Σ_i r_i r_iᵀ of rows (B, C, N), (B, N, N).

    Σ_ij (a_i·b_j)² = ⟨Σ_i a_i a_iᵀ, Σ_j b_j b_jᵀ⟩, so the squared distance of two of them is the discrepancy with the kernel (a·b)².
    """
    return rows.mT @ rows / rows.shape[1]


def _gaussian(s: Tensor, t: Tensor, bandwidth: float | None) -> Tensor:
    centre = t.mean(1, keepdim=True)  # distances know no origin; without what the patterns share, they keep their digits
    s, t = s - centre, t - centre
    across = _squared_distances(s, t)
    spread = across.detach().mean((1, 2), keepdim=True).clamp_min(_NARROWEST) if bandwidth is None else bandwidth
    # k − 1 in place of k: the ones cancel, and small distances keep their digits.
    means = [torch.expm1(-d / (2 * spread)).mean() for d in (_squared_distances(s, s), _squared_distances(t, t), across)]
    return _discrepancy(*means)


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """‖a_i − b_j‖² of rows (B, C_a, N) and (B, C_b, N): (B, C_a, C_b)."""
    lengths = a.square().sum(2).unsqueeze(2) + b.square().sum(2).unsqueeze(1)
    return (lengths - 2 * (a @ b.mT)).clamp_min(0)


def _discrepancy(within_s: Tensor, within_t: Tensor, across: Tensor) -> Tensor:
    """within_s + within_t − 2 · across, which rounding alone can make negative: it is then 0, with its gradient."""
    value = within_s + within_t - 2 * across
    return value + (value.clamp_min(0) - value).detach()
