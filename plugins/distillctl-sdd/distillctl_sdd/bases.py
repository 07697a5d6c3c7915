"""The losses ℓ of one region's logits, without a reduction: KD, DKD and NKD, each in float32 and exact however sure a network is.

Logits are (N, C), labels (N,), results (N,) with their T². A temperature is a number, a 0-dim tensor or (N, 1). With u = z/T,
g the target class and ℓ the logsumexp of u over all other classes: log q_i = u_i − ℓ for i ≠ g, log p_g = logσ(u_g − ℓ)
and log(1 − p_g) = logσ(ℓ − u_g).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distillctl import is_target, kl_divergence, other_divergence, others, split_target, target_divergence


def kd_rows(student: Tensor, teacher: Tensor, _labels: Tensor, temperature: Tensor | float) -> Tensor:
    """T² · KL(softmax(z_t/T) ‖ softmax(z_s/T)). Hinton et al. 2015, arXiv 1503.02531. The labels play no part."""
    log_s, log_t = F.log_softmax(student / temperature, dim=1), F.log_softmax(teacher / temperature, dim=1)
    return _times_square(kl_divergence(log_t, log_s), temperature)


def dkd_rows(student: Tensor, teacher: Tensor, labels: Tensor, temperature: Tensor | float, *, alpha: float, beta: float) -> Tensor:
    """T² · (α · KL(b_t ‖ b_s) + β · KL(q_t ‖ q_s)), b = (p_g, 1 − p_g). Zhao et al. 2022, arXiv 2203.08679."""
    target = is_target(labels, student.shape[1])
    gap_s, log_q_s = split_target(student / temperature, target)
    gap_t, log_q_t = split_target(teacher / temperature, target)
    rows = torch.zeros_like(gap_s)
    if alpha:
        rows = rows + alpha * target_divergence(gap_s, gap_t)
    if beta:
        rows = rows + beta * other_divergence(log_q_s, log_q_t, target)
    return _times_square(rows, temperature)


def nkd_rows(student: Tensor, teacher: Tensor, labels: Tensor, temperature: Tensor | float, *, gamma: float) -> Tensor:
    """−p_t,g · log p_s,g at temperature 1, and −γ · T² · Σ_{i≠g} q_t,i · log q_s,i. Yang et al. 2023, arXiv 2303.13005."""
    column = labels.unsqueeze(1)
    rows = -(teacher.softmax(1).gather(1, column) * F.log_softmax(student, dim=1).gather(1, column)).squeeze(1)
    if not gamma:
        return rows
    target = is_target(labels, student.shape[1])
    _, log_q_s = split_target(student / temperature, target)
    _, log_q_t = split_target(teacher / temperature, target)
    return rows - gamma * _times_square((others(log_q_t, target) * log_q_s).sum(1), temperature)


def _times_square(rows: Tensor, temperature: Tensor | float) -> Tensor:
    # One column, so that a factor of shape () or (N, 1) fits alike.
    return (rows.unsqueeze(1) * temperature**2).squeeze(1)
