"""The two parts of KD, for each sample, in a form that is exact however sure a network is.

With u = z/T, g the target class and ℓ = logsumexp of u over all classes but g:

    log p_g = logσ(u_g − ℓ),    log(1 − p_g) = logσ(ℓ − u_g),    log q_i = u_i − ℓ  for i ≠ g

so that no probability is computed to take its logarithm afterwards, and KL(p_t ‖ p_s) of KD splits into
KL(b_t ‖ b_s) + (1 − p_t,g) · KL(q_t ‖ q_s) with b = (p_g, 1 − p_g).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def is_target(labels: Tensor, num_classes: int) -> Tensor:
    """Labels (B,) → mask (B, num_classes), true at the class of each sample."""
    return labels.unsqueeze(1) == torch.arange(num_classes, device=labels.device)


def split(scaled: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Parts logits into what either divergence needs.

    scaled: u (B, C); target: mask (B, C).
    Returns u_g − ℓ of shape (B,), and log q of shape (B, C), whose value at the target class is of no meaning.
    """
    others = scaled.masked_fill(target, -torch.inf).logsumexp(1, keepdim=True)
    log_q = scaled - others
    return log_q.masked_fill(~target, 0.0).sum(1), log_q


def target_divergence(student_gap: Tensor, teacher_gap: Tensor) -> Tensor:
    """KL(b_t ‖ b_s) of each sample, (B,), from the gaps u_g − ℓ of both sides."""
    hit = teacher_gap.sigmoid() * (F.logsigmoid(teacher_gap) - F.logsigmoid(student_gap))
    miss = (-teacher_gap).sigmoid() * (F.logsigmoid(-teacher_gap) - F.logsigmoid(-student_gap))
    return hit + miss


def other_divergence(student_log_q: Tensor, teacher_log_q: Tensor, target: Tensor) -> Tensor:
    """KL(q_t ‖ q_s) of each sample, (B,), from log q of both sides; the target class is left out."""
    q = teacher_log_q.masked_fill(target, -torch.inf).exp()
    return (q * (teacher_log_q - student_log_q)).sum(1)
