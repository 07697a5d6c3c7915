"""The virtual teacher of `tfkd` and the loss against it, as functions of tensors."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from distillctl import is_target, kl_divergence


def virtual_teacher(
    labels: Tensor, num_classes: int, correct: float, temperature: float, *, logs: bool, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Log-probabilities (B, num_classes) of the softened teacher that gives `correct` to the class in labels (B,).

    logs: whether the temperature divides the logarithms of its probabilities instead of the probabilities.
    """
    other = (1 - correct) / (num_classes - 1)
    gap = (math.log(other / correct) if logs else other - correct) / temperature
    log_correct = -math.log1p((num_classes - 1) * math.exp(gap))
    is_correct = is_target(labels, num_classes)
    rest = torch.full(is_correct.shape, log_correct + gap, dtype=dtype, device=labels.device)
    return rest.masked_fill(is_correct, log_correct)


def tfkd_loss(logits: Tensor, log_target: Tensor, student_temperature: float) -> Tensor:
    """T² · mean_B KL(p ‖ softmax(z/T)) of logits z (B, C) and log-probabilities log p (B, C), 0-dim."""
    return kl_divergence(log_target, F.log_softmax(logits / student_temperature, dim=1)).mean() * student_temperature**2
