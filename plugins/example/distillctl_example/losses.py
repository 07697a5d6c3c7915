"""The loss of `mimic`, as a function of tensors."""

from __future__ import annotations

from torch import Tensor


def mimic_loss(student: Tensor, teacher: Tensor, *, centred: bool) -> Tensor:
    """½ · mean_B ‖z_s − z_t‖² of logits (B, C), 0-dim."""
    difference = student - teacher
    if centred:
        difference = difference - difference.mean(1, keepdim=True)
    return difference.square().sum(1).mean() / 2
