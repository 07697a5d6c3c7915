"""What an exit learns from the end of the network."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def soft_cross_entropy(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """T² · mean_B −Σ_c softmax(target/T)_c · log softmax(logits/T)_c, 0-dim. Both are logits (B, C)."""
    rows = F.softmax(target / temperature, dim=1) * F.log_softmax(logits / temperature, dim=1)
    return -rows.sum(1).mean() * temperature**2


def feature_distance(features: Tensor, target: Tensor, reduction: str) -> Tensor:
    """Squared distance of features (B, d) where one or the other is positive, 0-dim: summed, or divided by B·d (`mean`)."""
    counts = (features > 0) | (target > 0)
    squares = (features - target).square().masked_fill(~counts, 0.0)
    return squares.mean() if reduction == "mean" else squares.sum()
