"""The two parts of NKD, in a form that is exact however sure a network is.

With u = z/T, g the target class and ℓ the logsumexp of u over all classes but g: log q_i = u_i − ℓ for i ≠ g. The target
class leaves by a mask, so that neither value nor gradient depends on its logit.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distillctl import is_target, others, split_target


def target_loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """−mean_B p_t,y · log p_s,y at temperature 1, 0-dim, of logits (B, C) and labels (B,)."""
    log_p = F.log_softmax(student, dim=1).gather(1, labels.unsqueeze(1))
    p = teacher.softmax(1).gather(1, labels.unsqueeze(1))
    return -(p * log_p).mean()


def other_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: Tensor | float) -> Tensor:
    """−T² · mean_B Σ_{i≠y} q_t,i · log q_s,i, 0-dim, of logits (B, C) and labels (B,). T: a number, a 0-dim tensor or (B, 1)."""
    target = is_target(labels, student.shape[1])
    _, log_q = split_target(student / temperature, target)
    q = others(split_target(teacher / temperature, target)[1], target)
    # One column, so that a factor of shape () or (B, 1) fits alike.
    return -((q * log_q).sum(1, keepdim=True) * temperature**2).mean()
