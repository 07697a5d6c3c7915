"""The attention map of a feature map, and the distance of two."""

from __future__ import annotations

import torch
from torch import Tensor

from distillctl import match_size, unit_rows

_TINY = 1e-12


def attention_map(features: Tensor, power: float) -> Tensor:
    """mean_c |f|^p of maps (B, C, H, W), flattened to (B, H·W); rows of length 1, or zeros for a map without a value above 1e-12."""
    # The result does not depend on the scale, so dividing by a constant changes neither it nor its gradient; |f|^p stays within 1.
    largest = features.detach().abs().amax((1, 2, 3), keepdim=True)
    found = largest > _TINY
    strength = (features / torch.where(found, largest, 1.0)).abs().pow(power).mean(1).flatten(1)
    # A map that is all but zero has no direction: its gradient is zero, and not as large as 1 / eps.
    return torch.where(found.flatten(1), unit_rows(strength), 0.0)


def at_loss(student: Tensor, teacher: Tensor, *, power: float = 2.0, mode: str = "code") -> Tensor:
    """Distance of the attention maps of one pair of stages, 0-dim.

    student, teacher: (B, C_s, H_s, W_s) and (B, C_t, H_t, W_t); the larger map is average-pooled to the smaller size first.
    mode: `code` is mean_{B,h,w} (A_s − A_t)², `paper` is mean_B ‖A_s − A_t‖₂.
    """
    smaller, target = match_size(student, teacher)
    difference = attention_map(smaller, power) - attention_map(target, power)
    if mode == "paper":
        # PyTorch gives this norm the gradient 0 where it is 0.
        norms: Tensor = torch.linalg.vector_norm(difference, dim=1)
        return norms.mean()
    return difference.square().mean()
