"""The distance of two factors, and how they are normalised."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from distillctl import unit_rows

_EPS = 1e-12

Kind = Literal["attention", "full"]


def factor_loss(student: Tensor, teacher: Tensor, *, kind: Kind = "attention", p1: float = 2.0, p2: float = 1.0) -> Tensor:
    """The mean of |N(Q(F_s)) − N(Q(F_t))|^p2 over all elements, 0-dim; Q and N as in `direction`.

    student, teacher: factors (B, ·, H, W) of one height and width; for `full` with one number of channels too.
    """
    return (direction(student, kind, p1) - direction(teacher, kind, p1)).abs().pow(p2).mean()


def direction(factor: Tensor, kind: Kind, p1: float) -> Tensor:
    """N(Q(F)): one unit vector for each sample, or zeros where no value of the factor exceeds 1e-12.

    For `attention`, Q(F) = mean_c |F|^p1 and the result is (B, H·W); for `full`, Q(F) = F and the result is (B, C·H·W).
    """
    # The length drops out, so that dividing by the largest value changes neither the result nor the gradient, and no power overflows.
    largest = factor.detach().abs().amax((1, 2, 3), keepdim=True)
    found = largest > _EPS
    factor = factor / torch.where(found, largest, 1.0)
    rows = (factor.abs().pow(p1).mean(1) if kind == "attention" else factor).flatten(1)
    # A factor that is zero has no direction: its gradient is zero, and not as large as 1 / eps.
    return torch.where(found.flatten(1), unit_rows(rows), 0.0)
