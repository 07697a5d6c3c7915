"""What a GPU computes, on a CPU: vectors, values and gradients are those of the decomposition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import distillctl_kdsvd.losses
from distillctl_kdsvd.iteration import by_iteration
from distillctl_kdsvd.losses import _ABSENT, _BLUR, _leading_eigenvectors, right_singular_vectors

COUNT = 4


def gram(matrix: Tensor) -> Tensor:
    matrix = matrix / torch.linalg.matrix_norm(matrix, keepdim=True)
    return matrix.mT @ matrix


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


MATRICES = {
    "flat": noise(1024, 64),
    "activations": noise(256, 128).relu(),
    "few positions": noise(64, 96).relu(),
    "slow decay": noise(100, 96) * 0.8 ** torch.arange(96),
    "fast decay": noise(100, 96) * 0.5 ** torch.arange(96),
    "one strong direction": noise(100, 64) + 30 * noise(100, 1, seed=3),
    "rank 2": noise(100, 2) @ noise(2, 64, seed=1),
    "dead channels": noise(256, 64).relu() * (torch.arange(64) % 3 == 0),
}


@pytest.mark.parametrize("name", MATRICES)
def test_vectors_values_and_gradients_are_those_of_the_decomposition(name: str) -> None:
    leaf = gram(MATRICES[name]).requires_grad_()
    weights = noise(leaf.shape[-1], COUNT, seed=2)

    def found(vectors: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        present = (values > _ABSENT * values[:, :1]).unsqueeze(1)
        signs = (vectors.detach() * weights).sum(1, keepdim=True).sign()
        (gradient,) = torch.autograd.grad((vectors * signs * weights * present).sum(), leaf)
        return (vectors * signs * present).detach(), gradient

    theirs, ours = _leading_eigenvectors(leaf, COUNT), by_iteration(leaf, COUNT, _BLUR)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-10, atol=1e-12)
    (exact, gradient), (vectors, approximate) = found(*theirs), found(*ours)
    torch.testing.assert_close(vectors, exact, rtol=0, atol=1e-6)
    size = torch.linalg.matrix_norm(gradient, keepdim=True)
    torch.testing.assert_close(approximate / size, gradient / size, rtol=0, atol=1e-6)


def test_equal_eigenvalues_and_zeros_have_finite_gradients() -> None:
    for matrix in (torch.eye(40).expand(2, -1, -1), torch.zeros(2, 40, 40), torch.full((2, 40, 40), 1e-30)):
        leaf = matrix.clone().requires_grad_()
        vectors, values = by_iteration(leaf, COUNT, _BLUR)
        vectors.sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert vectors.isfinite().all()
        assert values.isfinite().all()


def test_single_precision_is_that_of_the_matrix() -> None:
    exact = gram(MATRICES["activations"])
    vectors, values = by_iteration(exact.float(), COUNT, _BLUR)
    assert vectors.dtype == values.dtype == torch.float32
    theirs, _ = _leading_eigenvectors(exact, COUNT)
    assert ((vectors * theirs).sum(1).abs() > 1 - 1e-5).all()


@pytest.mark.parametrize(("size", "count", "iterates"), [(33, 4, True), (32, 4, False), (64, 17, False)])
def test_off_the_cpu_large_matrices_are_iterated(monkeypatch: pytest.MonkeyPatch, size: int, count: int, iterates: bool) -> None:
    calls = []

    def instead(matrix: Tensor, count: int, blur: float) -> tuple[Tensor, Tensor]:
        calls.append(blur)
        return matrix[..., :count], matrix[:, 0, :count]

    monkeypatch.setattr(distillctl_kdsvd.losses, "by_iteration", instead)
    right_singular_vectors(torch.empty(2, 80, size, device="meta"), count)
    assert calls == [_BLUR] * iterates


def test_what_is_not_finite_is_seen_in_the_values() -> None:
    matrix = torch.full((1, 40, 40), torch.nan, device="meta")
    assert _leading_eigenvectors(matrix, COUNT)[1].shape == (1, COUNT)
    vectors, values = by_iteration(torch.full((1, 40, 40), torch.nan), COUNT, _BLUR)
    assert vectors.isfinite().all()
    assert values.isfinite().all()
