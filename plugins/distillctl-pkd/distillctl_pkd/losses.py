"""The loss of one pair of feature maps, and what it is made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_EPS = 1e-6


def pkd_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """½ · mean over all elements of (S(f_s) − S(f_t))², 0-dim, with S = `standardise`; 0 where each channel has one value.

    student, teacher: (B, C, H_s, W_s) and (B, C, H_t, W_t); the student's are resized to the teacher's size.
    """
    count, _, *size = teacher.shape
    if count * size[0] * size[1] < 2:
        return student.sum() * 0
    if list(student.shape[-2:]) != size:
        student = resize(student, (size[0], size[1]))
    return F.mse_loss(standardise(student), standardise(teacher)) / 2


def standardise(maps: Tensor) -> Tensor:
    """(f − mean) / (standard deviation + 10⁻⁶) of each channel over batch and positions, of maps (B, C, H, W) with two values or more.

    The standard deviation is that of a sample: the sum of the n squares is divided by n − 1. A channel that varies by less than a
    millionth has no shape but rounding: it is centred alone. Divided by 10⁻⁶, its gradient would be a million times as large.
    """
    mean = maps.mean((0, 2, 3), keepdim=True)
    centred = maps - mean
    variance = centred.square().sum((0, 2, 3), keepdim=True) / (maps.numel() // maps.shape[1] - 1)
    varies = variance > (_EPS * (1 + mean.abs())).square()
    return centred / (torch.where(varies, variance, 1.0).sqrt() + _EPS)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (B, C, H, W) at another size, (B, C, *size), by bilinear interpolation, as `F.interpolate` does it.

    Products of matrices add up in an order: on a GPU the gradient of `F.interpolate` does not, and `deterministic` refuses it.
    """
    rows, columns = (_shares(old, new, maps) for old, new in zip(maps.shape[-2:], size, strict=True))
    return rows @ maps @ columns.mT


def _shares(old: int, new: int, like: Tensor) -> Tensor:
    """How much each of the old positions of a side contributes to each of the new ones, (new, old)."""
    centres = (torch.arange(new, device=like.device, dtype=like.dtype) + 0.5) * (old / new) - 0.5
    places = torch.arange(old, device=like.device, dtype=like.dtype)
    return (1 - (centres.clamp(0, old - 1).unsqueeze(1) - places).abs()).clamp(min=0)
