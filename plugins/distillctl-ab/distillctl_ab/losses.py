"""The loss of `ab`, as functions of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SCALE = 3 / 1000
"""What the peers multiply the loss by, part of the term here."""


def boundary_loss(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """mean_B Σ_{c,h,w} of (m − s)² where t > 0 and s < m, and (m + s)² where t ≤ 0 and s > −m; 0-dim.

    student, teacher: maps (B, C, H, W) of one shape; of the teacher's only the sign is read.
    """
    signed = torch.where(teacher > 0, student, -student)
    return (margin - signed).clamp_min(0).square().sum() / len(student)


def ab_loss(students: Sequence[Tensor], teachers: Sequence[Tensor], margin: float) -> Tensor:
    """3/1000 · Σ_i 2^(i−n) · `boundary_loss` of the n stages, shallow to deep (i = 1 … n): the deepest counts fully; 0-dim."""
    terms = [boundary_loss(s, t, margin) for s, t in zip(students, teachers, strict=True)]
    return SCALE * torch.stack([term / 2 ** (len(terms) - i) for i, term in enumerate(terms, 1)]).sum()
