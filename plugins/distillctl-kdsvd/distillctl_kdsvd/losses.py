"""Singular vectors of stages, the student's aligned with the teacher's, and how those of consecutive stages relate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from distillctl import match_size
from distillctl_kdsvd.singular import right_singular_vectors

_EXTRA = 3  # vectors of the student, beside k, in which a match is sought


def kdsvd_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], *, variant: str = "channels", vectors: int = 1) -> Tensor:
    """Σ over consecutive stages of mean_B Σ_{i,j,k} (R_s − R_t)², 0-dim.

    student, teacher: at least two maps (B, C, H, W) on each side, shallow to deep. The larger of a pair is average-pooled to the smaller
        size; with `channels` both have equally many channels.
    variant: `channels` or `width`, see `as_matrix`. vectors: k, at most the smaller side of each matrix.
    """
    pairs = [main_vectors(*match_size(s, t), variant, vectors) for s, t in zip(student, teacher, strict=True)]
    losses = []
    for (shallow_s, shallow_t), (deep_s, deep_t) in pairwise(pairs):
        difference = relation(deep_s, shallow_s) - relation(deep_t, shallow_t)
        losses.append(difference.square().sum((1, 2, 3)).mean())
    return torch.stack(losses).sum()


def as_matrix(features: Tensor, variant: str) -> Tensor:
    """Maps (B, C, H, W) as matrices whose right singular vectors are over channels, (B, H·W, C), or over the width, (B, C·H, W)."""
    return features.flatten(2).mT if variant == "channels" else features.flatten(1, 2)


def main_vectors(student: Tensor, teacher: Tensor, variant: str, count: int) -> tuple[Tensor, Tensor]:
    """Right singular vectors of one stage, (B, n, count) of each side, both scaled by the teacher's singular values.

    The teacher's values are divided by their norm over the `count`; its vectors have a non-negative sum, which settles their sign. In place
    of each of them the student has that one of its own, with that sign, whose cosine with it is largest in size.
    """
    matrix_s, matrix_t = as_matrix(student, variant), as_matrix(teacher, variant)
    ours, _ = right_singular_vectors(matrix_s, min(count + _EXTRA, *matrix_s.shape[1:]))
    theirs, values = right_singular_vectors(matrix_t, count)
    theirs = torch.where(theirs.sum(1, keepdim=True) < 0, -theirs, theirs)
    factors = torch.nn.functional.normalize(values, dim=1).unsqueeze(1)
    return align(ours, theirs) * factors, theirs * factors


def align(ours: Tensor, theirs: Tensor) -> Tensor:
    """For each column of `theirs` (B, n, k) the column of `ours` (B, n, m) that is nearest up to its sign, with the nearer sign: (B, n, k).

    Without a gradient through the choice. Where all cosines are 0, as beside a zero column, the result is a zero column.
    """
    cosines = (ours.mT @ theirs).detach()  # (B, m, k)
    best = cosines.abs().argmax(1, keepdim=True)  # (B, 1, k)
    return ours.gather(2, best.expand(-1, ours.shape[1], -1)) * cosines.gather(1, best).sign()


def relation(deep: Tensor, shallow: Tensor) -> Tensor:
    """exp(−(v_i − u_j)² / 8) − 1 of vectors v (B, n, k) and u (B, m, k): (B, n, m, k). The ones cancel in a difference of two relations."""
    return torch.expm1((deep.unsqueeze(2) - shallow.unsqueeze(1)).square() / -8)
