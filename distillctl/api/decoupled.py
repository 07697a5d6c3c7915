"""Logits taken apart into the target class and all others, for each sample, exact however sure a network is.

With u = z/T, g the target class and ℓ the logsumexp of u over all classes but g:

    log p_g = logσ(u_g − ℓ),    log(1 − p_g) = logσ(ℓ − u_g),    log q_i = u_i − ℓ  for i ≠ g

so that no probability is computed to take its logarithm afterwards. KL(p_t ‖ p_s) of KD is KL(b_t ‖ b_s) + (1 − p_t,g) · KL(q_t ‖ q_s)
with b = (p_g, 1 − p_g). Zhao et al. 2022, arXiv 2203.08679.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def is_target(labels: Tensor, num_classes: int) -> Tensor:
    """Labels (B,) → mask (B, num_classes), true at the class of each sample and nowhere else."""
    return labels.unsqueeze(1) == torch.arange(num_classes, device=labels.device)


def split_target(scaled: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Parts logits u (B, C) by a mask (B, C): u_g − ℓ of shape (B,), and log q (B, C).

    The value of log q at the target class is finite and of no meaning.
    """
    log_q = scaled - scaled.masked_fill(target, -torch.inf).logsumexp(1, keepdim=True)
    return log_q.masked_fill(~target, 0.0).sum(1), log_q


def others(log_q: Tensor, target: Tensor) -> Tensor:
    """The distribution q (B, C), which is 0 at the target class."""
    return log_q.masked_fill(target, -torch.inf).exp()


def target_divergence(student_gap: Tensor, teacher_gap: Tensor) -> Tensor:
    """KL(b_t ‖ b_s) of each sample, (B,), from the gaps u_g − ℓ of both sides."""
    hit = teacher_gap.sigmoid() * (F.logsigmoid(teacher_gap) - F.logsigmoid(student_gap))
    miss = (-teacher_gap).sigmoid() * (F.logsigmoid(-teacher_gap) - F.logsigmoid(-student_gap))
    return hit + miss


def other_divergence(student_log_q: Tensor, teacher_log_q: Tensor, target: Tensor) -> Tensor:
    """KL(q_t ‖ q_s) of each sample, (B,), from log q of both sides; the target class is left out."""
    return (others(teacher_log_q, target) * (teacher_log_q - student_log_q)).sum(1)


__all__ = ["is_target", "other_divergence", "others", "split_target", "target_divergence"]
