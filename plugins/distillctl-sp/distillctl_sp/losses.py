"""The loss of one pair of features."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

RowNorm = Literal["l2", "l1"]

_SHORTEST = 1e-12  # rows below are left as they are: dividing would turn their gradient into 10¹²


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
    return unit_rows(rows @ rows.T, row_norm)


def unit_rows(matrix: Tensor, row_norm: RowNorm = "l2") -> Tensor:
    """A matrix (B, n) whose rows have the norm 1, except those of zeros."""
    if row_norm == "l1":
        lengths = matrix.abs().sum(1, keepdim=True)
        return matrix / torch.where(lengths > _SHORTEST, lengths, 1.0)
    squares = matrix.square().sum(1, keepdim=True)
    return matrix / torch.where(squares > _SHORTEST**2, squares, 1.0).sqrt()
