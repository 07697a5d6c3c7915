"""The loss of `vkd` from the projected feature, and pooling, as functions of tensors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def vkd_loss(projected: Tensor, teacher: Tensor) -> Tensor:
    """Mean over everything of smooth_l1(u − LN(g_t)), 0-dim, of u = P·g_s and g_t, both (B, d).

    smooth_l1(x) = x²/2 for |x| < 1, |x| − 1/2 beyond. LN brings each sample to mean 0 and variance 1 over its d features, without
    trained parameters; a sample of equal features becomes zeros.
    """
    return F.smooth_l1_loss(projected, F.layer_norm(teacher, teacher.shape[1:]))


def as_vectors(feature: Tensor) -> Tensor:
    """(B, d) as it is; maps (B, C, H, W) → (B, C) and tokens (B, N, d) → (B, d), averaged over positions."""
    if feature.ndim == 4:
        return feature.mean((2, 3))
    return feature.mean(1) if feature.ndim == 3 else feature
