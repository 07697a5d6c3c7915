"""The cross-entropy with an enhanced target class."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from distillctl import is_target

Variant = Literal["code", "paper"]


def enhanced_target(teacher: Tensor, labels: Tensor, eps: float, variant: Variant = "code") -> Tensor:
    """What stands before each log p_s, (B, C), with p = softmax of the teacher's logits (B, C) and labels (B,).

    `code`: (1 + p)^ε − 1 at the label's class and p^ε elsewhere; `paper`: (1 + p)^ε at the label's class and p elsewhere.
    From logarithms, so that small probabilities lose no digits next to 1.
    """
    log_p = F.log_softmax(teacher, dim=1)
    at_label = is_target(labels, teacher.shape[1])
    enhanced = eps * torch.log1p(log_p.exp())
    if variant == "paper":
        return torch.where(at_label, enhanced.exp(), log_p.exp())
    return torch.where(at_label, torch.expm1(enhanced), (eps * log_p).exp())


def cross_entropy(student: Tensor, target: Tensor) -> Tensor:
    """mean_B −Σ_c a_c · log p_s,c of logits (B, C) and non-negative amounts a (B, C), 0-dim. The amounts need not sum to 1."""
    return -(target * F.log_softmax(student, dim=1)).sum(1).mean()


def ofa_loss(student: Tensor, teacher: Tensor, labels: Tensor, eps: float, variant: Variant = "code") -> Tensor:
    """mean_B −Σ_c [(p_t,c + m_c)^ε − m_c] · log p_s,c of logits (B, C) and labels (B,), 0-dim; `variant` as in `enhanced_target`."""
    return cross_entropy(student, enhanced_target(teacher, labels, eps, variant))
