"""The two parts of DIST, from logits."""

from __future__ import annotations

from torch import Tensor

_EPS = 1e-8
# Under a root, so that constant rows have a gradient; a norm that it changes is far below what `_EPS` lets through.
_TINY = 1e-30


def correlation(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """⟨a − ā, b − b̄⟩ / (‖a − ā‖ · ‖b − b̄‖ + 1e-8) along a dimension of two matrices; 0 where one of them is constant."""
    a, b = a - a.mean(dim, keepdim=True), b - b.mean(dim, keepdim=True)
    return (a * b).sum(dim) / (_norm(a, dim) * _norm(b, dim) + _EPS)


def inter_loss(student: Tensor, teacher: Tensor, temperature: Tensor | float) -> Tensor:
    """mean_B T² · (1 − ρ(Y_s[i,:], Y_t[i,:])), 0-dim, of logits (B, C). T: a number, a 0-dim tensor or (B, 1)."""
    rows = 1 - correlation((student / temperature).softmax(1), (teacher / temperature).softmax(1), 1)
    # One column, so that a factor of shape () or (B, 1) fits alike.
    return (rows.unsqueeze(1) * temperature**2).mean()


def intra_loss(student: Tensor, teacher: Tensor, temperature: Tensor | float) -> Tensor:
    """T² · (1 − mean_C ρ(Y_s[:,j], Y_t[:,j])), 0-dim, of logits (B, C). With T of shape (B, 1), the factor is the mean of T².

    0, with a graph, for one sample, which has no relation to another.
    """
    if len(student) == 1:
        return student.sum() * 0
    columns = correlation((student / temperature).softmax(1), (teacher / temperature).softmax(1), 0)
    factor = temperature**2
    return (1 - columns.mean()) * (factor.mean() if isinstance(factor, Tensor) else factor)


def _norm(centred: Tensor, dim: int) -> Tensor:
    return (centred.square().sum(dim) + _TINY).sqrt()
