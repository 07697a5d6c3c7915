"""The teacher's probabilities raised to a power, and the divergence of the student's from them, as functions of tensors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distillctl import kl_divergence


def powered(logits: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """The logarithms of q (B, C) and U (B, 1) with q = p^γ / U, U = Σ_c p_c^γ, p = softmax(z), of logits z (B, C)."""
    log_powers = gamma * F.log_softmax(logits, dim=1)
    log_sum = log_powers.logsumexp(1, keepdim=True)
    return log_powers - log_sum, log_sum


def ttm_loss(student: Tensor, teacher: Tensor, gamma: float, *, weighted: bool = False) -> Tensor:
    """mean_B KL(q ‖ softmax(z_s)) of logits (B, C), 0-dim; weighted: mean_B U · KL(q ‖ softmax(z_s))."""
    log_q, log_sum = powered(teacher, gamma)
    rows = kl_divergence(log_q, F.log_softmax(student, dim=1))
    return (rows * log_sum.squeeze(1).exp()).mean() if weighted else rows.mean()
