"""The loss of one pair of feature maps."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distillctl import kl_divergence


def cwd_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · mean_{B,C} KL(φ_t ‖ φ_s) of two maps (B, C, H, W), 0-dim; φ is the softmax of map/T over the H·W positions of each channel."""
    log_s, log_t = (F.log_softmax(maps.flatten(2) / temperature, dim=2).flatten(0, 1) for maps in (student, teacher))
    return kl_divergence(log_t, log_s).mean() * temperature**2
