"""What several methods share. All of it expects float32 or float64 and is used inside an fp32 island."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distillctl.api.pooling import pool_average

_SHORTEST = 1e-12


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p‖q) of each row, from log-probabilities of shape (B, C): (B,). Rows of p may have zero mass (log p = −inf)."""
    p = log_p.exp()
    return (p * (log_p - log_q)).masked_fill(p == 0, 0.0).sum(1)


def kd_loss(student: Tensor, teacher: Tensor, student_temperature: Tensor | float, teacher_temperature: Tensor | float) -> Tensor:
    """T_s·T_t · mean_B KL(softmax(z_t/T_t) ‖ softmax(z_s/T_s)), 0-dim. Hinton et al. 2015, arXiv 1503.02531.

    student, teacher: logits (B, C). Temperatures: numbers, 0-dim tensors or (B, 1). With equal temperatures the factor is
    the usual T², which keeps the size of the gradients; it is always there.
    """
    log_s = F.log_softmax(student / student_temperature, dim=1)
    log_t = F.log_softmax(teacher / teacher_temperature, dim=1)
    rows = kl_divergence(log_t, log_s)
    factor = student_temperature * teacher_temperature
    if isinstance(factor, Tensor) and factor.ndim:
        return (rows * factor.flatten()).mean()
    return rows.mean() * factor


def match_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Pools the larger of two maps (B, ·, H, W) to the smaller size by adaptive averages, side by side in height and width."""
    size = (min(a.shape[-2], b.shape[-2]), min(a.shape[-1], b.shape[-1]))
    if a.shape[-2:] != size:
        a = pool_average(a, size)
    if b.shape[-2:] != size:
        b = pool_average(b, size)
    return a, b


def unit_rows(matrix: Tensor) -> Tensor:
    """A matrix (…, d) whose rows have the length 1; those shorter than 10⁻¹² are left as they are.

    Dividing these by 10⁻¹² would not overflow either, but their gradient would be of the size 10¹².
    """
    squares = matrix.square().sum(-1, keepdim=True)
    return matrix / torch.where(squares > _SHORTEST**2, squares, 1.0).sqrt()


def widen(value: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are. For reductions of methods with `autocast = True`."""
    return value.to(torch.promote_types(value.dtype, torch.float32))
