"""The loss of one pair of features."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from distillctl import unit_rows

RowNorm = Literal["l2", "l1"]

_SHORTEST = 1e-12  # rows below are left as they are, as in `unit_rows`


def sp_loss(student: Tensor, teacher: Tensor, row_norm: RowNorm = "l2") -> Tensor:
    """1/B² · Σ_ij (G_t − G_s)²_ij with G = `similarities(F)`, 0-dim; 0 for a batch of one sample.

    student, teacher: F (B, …), of any two shapes behind the batch dimension.
    """
    size = len(student)
    if size < 2:
        return student.sum() * 0
    difference = similarities(teacher, row_norm) - similarities(student, row_norm)
    return difference.square().sum() / size**2


def similarities(features: Tensor, row_norm: RowNorm = "l2") -> Tensor:
    """F·Fᵀ of features (B, …), flattened to (B, d), with rows of norm 1: (B, B). Rows of zeros stay zero."""
    rows = features.flatten(1)
    products = rows @ rows.T
    if row_norm == "l2":
        return unit_rows(products)
    sums = products.abs().sum(1, keepdim=True)
    return products / torch.where(sums > _SHORTEST, sums, 1.0)
