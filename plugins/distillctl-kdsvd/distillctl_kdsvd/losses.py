"""Singular vectors of stages, the student's aligned with the teacher's, and how those of consecutive stages relate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from distillctl import match_size
from distillctl_kdsvd.iteration import BASIS, by_iteration

_TINY = 1e-12
_ABSENT = 1e-6  # share of the largest squared singular value below which float32 sees rounding
_BLUR = 1e-4  # squared singular values (of a matrix of norm 1) that are this near to each other count as equal in the gradient
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


def right_singular_vectors(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The main singular directions of matrices (B, N, n), count ≤ min(N, n).

    Returns:
        The vectors (B, n, count) as columns of length 1, largest singular value first, their signs arbitrary; and the singular values
        (B, count) of the matrix divided by its norm, which carry no gradient. A direction that the matrix does not have, because its rank
        is lower, is a zero column without a gradient.
    """
    # A constant factor changes neither the vectors nor, as it is undone by their length, their gradient.
    scaled = matrix / torch.linalg.matrix_norm(matrix.detach(), keepdim=True).clamp_min(_TINY)
    wide = matrix.shape[1] < matrix.shape[2]
    gram = scaled @ scaled.mT if wide else scaled.mT @ scaled
    top, squares = _leading_eigenvectors(gram, count)
    if wide:  # top holds left vectors u; the right ones are Xᵀu / ‖Xᵀu‖
        top = scaled.mT @ top
    absent = (squares <= _ABSENT * squares[:, :1]).unsqueeze(1)
    lengths = torch.where(absent, 1.0, torch.linalg.vector_norm(top, dim=1, keepdim=True))
    return torch.where(absent, 0.0, top / lengths), squares.clamp_min(0).sqrt()


def _leading_eigenvectors(symmetric: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The last `count` eigenvectors (B, m, count) of matrices (B, m, m), largest eigenvalue first, and the eigenvalues (B, count).

    The vectors have the gradient of first-order perturbation, dv_j = Σ_i v_i · (v_iᵀ dG v_j) / (λ_j − λ_i), where 1/x is x / (x² + blur²):
    the true gradient for separate eigenvalues, and 0 instead of infinity between equal ones. On a GPU, large matrices are not decomposed:
    see `iteration`.
    """
    if symmetric.device.type != "cpu" and symmetric.shape[-1] > BASIS and count <= BASIS // 2:
        top, largest = by_iteration(symmetric, count, _BLUR)
        return top, largest + 0 * symmetric.detach().sum((1, 2)).unsqueeze(1)
    # What is not finite goes past the solver, which would raise, and into the eigenvalues, so that the engine sees it in the loss.
    known = symmetric.detach()
    values, basis = torch.linalg.eigh(known.nan_to_num(0.0, 0.0, 0.0))
    values = values + 0 * known.sum((1, 2)).unsqueeze(1)
    top, largest = basis[..., -count:].flip(-1), values[..., -count:].flip(-1)
    gaps = largest.unsqueeze(1) - values.unsqueeze(2)  # [i, j] = λ_j − λ_i
    shifts = basis @ (basis.mT @ (symmetric @ top) * gaps / (gaps.square() + _BLUR**2))
    return top + (shifts - shifts.detach()), largest
