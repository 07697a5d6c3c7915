"""The loss of `rdrop`, as a function of tensors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def rdrop_loss(first: Tensor, second: Tensor, reduction: str) -> Tensor:
    """½ · (KL(p₁ ‖ p₂) + KL(p₂ ‖ p₁)) of logits (B, C), 0-dim; over the batch the mean (`batchmean`) or the sum (`sum`).

    Both divergences are one sum, ½ · Σ_c (p₁ − p₂) · (log p₁ − log p₂), of which no part is negative.
    """
    log_p, log_q = F.log_softmax(first, dim=1), F.log_softmax(second, dim=1)
    rows = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(1) / 2
    return rows.sum() if reduction == "sum" else rows.mean()
