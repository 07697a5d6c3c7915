"""Singular vectors and their gradient: that of the solver where singular values are apart, finite where they are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from distillctl_kdsvd.losses import kdsvd_loss, right_singular_vectors

TALL, WIDE, SQUARE = (9, 5), (5, 9), (6, 6)


def matrices(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [TALL, WIDE, SQUARE], ids=str)
def test_vectors_and_values_are_those_of_the_solver(shape: tuple[int, int]) -> None:
    matrix = matrices(*shape)
    _, values, rows = torch.linalg.svd(matrix, full_matrices=False)
    ours, squares = right_singular_vectors(matrix, 4)
    cosines = (rows[:, :4].mT * ours).sum(1)
    torch.testing.assert_close(cosines.abs(), torch.ones(3, 4, dtype=torch.float64), rtol=1e-9, atol=0)
    torch.testing.assert_close(squares, values[:, :4] / torch.linalg.vector_norm(values, dim=1, keepdim=True))


@pytest.mark.parametrize("shape", [TALL, WIDE, SQUARE], ids=str)
def test_gradient_is_that_of_the_solver_where_values_are_apart(shape: tuple[int, int]) -> None:
    left, _, right = torch.linalg.svd(matrices(*shape), full_matrices=False)
    spaced = torch.linspace(2.0, 0.5, min(shape), dtype=torch.float64)
    matrix = ((left * spaced) @ right).requires_grad_()
    weights = matrices(shape[1], 4, seed=1)

    def gradient(decompose: Callable[[Tensor], Tensor]) -> Tensor:
        vectors = decompose(matrix)
        signs = vectors.detach().sum(1, keepdim=True).sign()
        return torch.autograd.grad((vectors * signs * weights).sum(), matrix)[0]

    ours = gradient(lambda m: right_singular_vectors(m, 4)[0])
    theirs = gradient(lambda m: torch.linalg.svd(m, full_matrices=False).Vh[:, :4].mT)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [TALL, WIDE], ids=str)
def test_absent_directions_are_zero_columns_without_a_gradient(shape: tuple[int, int]) -> None:
    """Rank 2: the solver's third and fourth vectors are arbitrary."""
    matrix = (matrices(shape[0], 2) @ matrices(2, shape[1], seed=1)).float().requires_grad_()
    vectors, _ = right_singular_vectors(matrix, 4)
    torch.testing.assert_close(torch.linalg.vector_norm(vectors, dim=1), torch.tensor([[1.0, 1.0, 0.0, 0.0]]).expand(3, -1))
    assert (torch.autograd.grad(vectors[..., 2:].sum(), matrix)[0] == 0).all()


@pytest.mark.parametrize("shape", [TALL, WIDE, SQUARE], ids=str)
def test_equal_singular_values_have_finite_gradients(shape: tuple[int, int]) -> None:
    left, _, right = torch.linalg.svd(matrices(*shape).float(), full_matrices=False)
    matrix = (left @ right).requires_grad_()
    vectors, _ = right_singular_vectors(matrix, 4)
    (vectors * torch.randn(3, shape[1], 4)).sum().backward()
    assert matrix.grad.isfinite().all()
    assert matrix.grad.abs().max() < 1e5


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4, 1e15])
def test_float32_at_any_scale(scale: float) -> None:
    exact, _ = right_singular_vectors(matrices(*TALL), 2)
    leaf = (matrices(*TALL) * scale).float().requires_grad_()
    vectors, _ = right_singular_vectors(leaf, 2)
    assert ((vectors.double() * exact).sum(1).abs() > 1 - 1e-5).all()
    vectors.sum().backward()
    assert leaf.grad.isfinite().all()
    assert leaf.grad.abs().max() > 0


def dead(features: Tensor) -> Tensor:
    features[:, ::2] = 0
    return features


def constant(features: Tensor) -> Tensor:
    return torch.full_like(features, 2.5)


def one_map_for_all(features: Tensor) -> Tensor:
    return features[:, :1].expand_as(features).clone()


@pytest.mark.parametrize("variant", ["channels", "width"])
@pytest.mark.parametrize("side", ["student", "teacher", "both"])
@pytest.mark.parametrize("spoil", [dead, torch.zeros_like, constant, one_map_for_all])
def test_d07_degenerate_maps_have_finite_gradients(spoil: Callable[[Tensor], Tensor], side: str, variant: str) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = ([torch.rand(4, c, s, s, generator=generator) for c, s in ((6, 4), (8, 2))] for _ in range(2))
    student, teacher = (
        [spoil(m) if side in (name, "both") else m for m in maps] for name, maps in (("student", student), ("teacher", teacher))
    )
    for m in student:
        m.requires_grad_()
    value = kdsvd_loss(student, teacher, variant=variant)
    value.backward()
    assert value.isfinite()
    assert all(m.grad.isfinite().all() for m in student)


def test_d07_dead_channels_break_the_solver_s_own_gradient() -> None:
    """Why this package has its own."""
    matrix = dead(torch.rand(2, 6, 4, 4)).flatten(2).mT.contiguous().requires_grad_()
    torch.linalg.svd(matrix, full_matrices=False).Vh[:, :4].square().sum().backward()
    assert not matrix.grad.isfinite().all()


def test_dead_channels_leave_the_others_a_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = ([torch.rand(4, c, s, s, generator=generator) for c, s in ((6, 4), (8, 3))] for _ in range(2))
    student = [dead(m).requires_grad_() for m in student]
    kdsvd_loss(student, teacher).backward()
    assert all((m.grad[:, 1::2].abs().sum((2, 3)) > 0).all() for m in student)


def test_values_that_are_not_finite_reach_the_loss() -> None:
    """The solver would raise, in place of the engine's message on a run that has diverged."""
    student, teacher = ([torch.rand(2, 4, 3, 3), torch.rand(2, 4, 2, 2)] for _ in range(2))
    for bad in (float("nan"), float("inf")):
        spoilt = [student[0].clone().index_fill(1, torch.tensor([1]), bad), student[1]]
        assert not kdsvd_loss(spoilt, teacher).isfinite()
        assert not kdsvd_loss(student, [spoilt[0], teacher[1]]).isfinite()


def test_student_moves_to_the_teacher() -> None:
    """Gradient steps on the maps themselves."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = ([torch.rand(2, c, 3, 3, generator=generator) for c in (4, 5)] for _ in range(2))
    student = [m.requires_grad_() for m in student]
    optimizer = torch.optim.Adam(student, lr=0.02)
    first = kdsvd_loss(student, teacher).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = kdsvd_loss(student, teacher)
        loss.backward()
        optimizer.step()
    assert loss.item() < first / 10
