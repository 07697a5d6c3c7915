"""The main right singular vectors of a batch of matrices, with a gradient that is finite everywhere."""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = 1e-12
_ABSENT = 1e-6  # share of the largest squared singular value below which float32 sees rounding
_BLUR = 1e-4  # squared singular values (of a matrix of norm 1) that are this near to each other count as equal in the gradient


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
    the true gradient for separate eigenvalues, and 0 instead of infinity between equal ones.
    """
    # What is not finite goes past the solver, which would raise, and into the eigenvalues, so that the engine sees it in the loss.
    known = symmetric.detach()
    values, basis = torch.linalg.eigh(known.nan_to_num(0.0, 0.0, 0.0))
    values = values + 0 * known.sum((1, 2)).unsqueeze(1)
    top, largest = basis[..., -count:].flip(-1), values[..., -count:].flip(-1)
    gaps = largest.unsqueeze(1) - values.unsqueeze(2)  # [i, j] = λ_j − λ_i
    shifts = basis @ (basis.mT @ (symmetric @ top) * gaps / (gaps.square() + _BLUR**2))
    return top + (shifts - shifts.detach()), largest
