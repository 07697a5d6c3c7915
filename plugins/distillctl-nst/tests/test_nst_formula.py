"""`nst` against its definition in plain Python loops, and what must hold of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from distillctl_nst.losses import nst_loss, patterns

KERNELS = ["poly", "linear", "rbf"]
FEW_POSITIONS, MANY_POSITIONS = (3, 2), (4, 3)  # with 4 and 7 channels the two forms of `poly`


def maps(channels: int, size: tuple[int, int], seed: int = 0, batch: int = 3) -> Tensor:
    return torch.randn(batch, channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def unit_rows(image: list) -> list[list[float]]:
    """One image (C, H, W) as nested lists: its channels, flattened and divided by their norms; a dead channel stays 0."""
    rows = [[value for line in plane for value in line] for plane in image]
    return [[value / (math.sqrt(dot(row, row)) or 1.0) for value in row] for row in rows]


def nst_by_loops(student: Tensor, teacher: Tensor, kernel: str, bandwidth: float | None = None) -> float:
    total = 0.0
    for s_image, t_image in zip(student.tolist(), teacher.tolist(), strict=True):
        s, t = unit_rows(s_image), unit_rows(t_image)
        squares = {(i, j): dot(a, a) + dot(b, b) - 2 * dot(a, b) for (i, a), (j, b) in itertools.product(enumerate(s), enumerate(t))}
        variance = bandwidth or sum(squares.values()) / len(squares)
        k: Callable[[list[float], list[float]], float] = {
            "poly": lambda a, b: dot(a, b) ** 2,
            "linear": dot,
            "rbf": lambda a, b, v=variance: math.exp(-(dot(a, a) + dot(b, b) - 2 * dot(a, b)) / (2 * v)),
        }[kernel]
        for factor, rows, columns in ((1, s, s), (1, t, t), (-2, s, t)):
            total += factor * sum(k(a, b) for a in rows for b in columns) / (len(rows) * len(columns))
    return total / len(student)


def naive(student: Tensor, teacher: Tensor) -> Tensor:
    """The benchmarks' form of `poly`: every product of two channels, position by position, (B, C, C, h·w)."""

    def mean(a: Tensor, b: Tensor) -> Tensor:
        return (a.unsqueeze(1) * b.unsqueeze(2)).sum(-1).square().mean()

    s, t = (torch.nn.functional.normalize(f.flatten(2), dim=2) for f in (student, teacher))
    return mean(t, t).detach() + mean(s, s) - 2 * mean(s, t)


@pytest.mark.parametrize("size", [FEW_POSITIONS, MANY_POSITIONS])
@pytest.mark.parametrize("kernel", KERNELS)
def test_formula(kernel: str, size: tuple[int, int]) -> None:
    student, teacher = maps(4, size), maps(7, size, seed=1)
    value = nst_loss(student, teacher, kernel=kernel)
    assert (value.shape, value.dtype) == ((), torch.float64)
    assert value.item() == pytest.approx(nst_by_loops(student, teacher, kernel), rel=1e-10)


def test_formula_with_a_given_bandwidth() -> None:
    student, teacher = maps(4, (3, 2)), maps(7, (3, 2), seed=1)
    value = nst_loss(student, teacher, kernel="rbf", bandwidth=0.3).item()
    assert value == pytest.approx(nst_by_loops(student, teacher, "rbf", 0.3), rel=1e-10)
    assert value != pytest.approx(nst_loss(student, teacher, kernel="rbf").item(), rel=1e-2)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [FEW_POSITIONS, MANY_POSITIONS])
def test_dead_channels_are_zero_vectors(kernel: str, size: tuple[int, int]) -> None:
    student, teacher = maps(4, size), maps(7, size, seed=1)
    student[:, 1], teacher[:, 3] = 0, 0
    assert nst_loss(student, teacher, kernel=kernel).item() == pytest.approx(nst_by_loops(student, teacher, kernel), rel=1e-10)


def test_values_by_hand() -> None:
    """One channel along x, against one along x and one along y."""
    student = torch.tensor([[[[2.0, 0.0]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[5.0, 0.0]], [[0.0, 0.1]]]], dtype=torch.float64)
    # k(s, s') = 1; k(t, t') = 1 on the diagonal, 0 off it: 1/2; k(s, t) = 1, 0: 1/2.
    assert nst_loss(student, teacher).item() == pytest.approx(1 + 1 / 2 - 2 * 1 / 2, rel=1e-12)
    assert nst_loss(student, teacher, kernel="linear").item() == pytest.approx(1 + 1 / 2 - 2 * 1 / 2, rel=1e-12)
    # Squared distances 0 and 2, so that σ² = 1 and k = 1, 1/e.
    far = math.exp(-1)
    assert nst_loss(student, teacher, kernel="rbf").item() == pytest.approx(1 + (1 + far) / 2 - (1 + far), rel=1e-12)


@pytest.mark.parametrize("size", [FEW_POSITIONS, MANY_POSITIONS])
def test_d21_matrix_products_are_the_naive_form(size: tuple[int, int]) -> None:
    student, teacher = maps(4, size).requires_grad_(), maps(7, size, seed=1)
    values = [nst_loss(student, teacher), naive(student, teacher)]
    torch.testing.assert_close(*values, rtol=1e-12, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(value, student)[0] for value in values), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [FEW_POSITIONS, MANY_POSITIONS])
def test_gradient_is_that_of_the_formula(kernel: str, size: tuple[int, int]) -> None:
    student, teacher = maps(4, size, batch=2).requires_grad_(), maps(7, size, seed=1, batch=2)
    bandwidth = 0.5 if kernel == "rbf" else None  # the measured one is a constant to autograd
    assert torch.autograd.gradcheck(lambda x: nst_loss(x, teacher, kernel=kernel, bandwidth=bandwidth), student)


def test_measured_bandwidth_is_a_constant_to_the_gradient() -> None:
    student, teacher = maps(4, (3, 2), batch=1).requires_grad_(), maps(7, (3, 2), seed=1, batch=1)
    s, t = patterns(student).detach(), patterns(teacher)
    variance = torch.cdist(s, t).square().mean().item()
    gradients = [torch.autograd.grad(nst_loss(student, teacher, kernel="rbf", bandwidth=b), student)[0] for b in (None, variance)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("spread", [1e-2, 1e-4, 1e-6])
def test_nearly_equal_patterns_have_a_bounded_gradient(spread: float) -> None:
    """A bandwidth that shrank with the distances would give a gradient of the size 1 / spread."""
    pattern = maps(1, (4, 3), seed=2).abs() + 1
    student = (pattern + spread * maps(4, (4, 3))).requires_grad_()
    nst_loss(student, pattern + spread * maps(7, (4, 3), seed=1), kernel="rbf").backward()
    assert 0 < student.grad.abs().max() < 3


@pytest.mark.parametrize("larger", ["student", "teacher"])
def test_larger_map_is_average_pooled(larger: str) -> None:
    big, small = maps(4, (6, 4)), maps(7, (3, 2), seed=1)
    pooled = big.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    pair, expected = ((big, small), (pooled, small)) if larger == "student" else ((small, big), (small, pooled))
    assert nst_loss(*pair).item() == pytest.approx(nst_by_loops(*expected, "poly"), rel=1e-10)


@pytest.mark.parametrize("size", [FEW_POSITIONS, MANY_POSITIONS])
@pytest.mark.parametrize("kernel", KERNELS)
def test_zero_where_the_sets_of_channels_agree(kernel: str, size: tuple[int, int]) -> None:
    """Their order, and each channel's positive scale, do not matter; with `poly` its sign does not either. Nor do copies."""
    teacher = maps(5, size)
    scales = torch.tensor([0.01, 3.0, 1.0, 50.0, 7.0], dtype=torch.float64).reshape(5, 1, 1)
    student = (teacher * scales)[:, [3, 1, 4, 0, 2]].requires_grad_()
    value = nst_loss(student, teacher, kernel=kernel)
    value.backward()
    assert abs(value.item()) < 1e-12
    assert student.grad.abs().max() < 1e-12
    assert nst_loss(teacher.repeat(1, 2, 1, 1), teacher, kernel=kernel).item() < 1e-12
    flipped = nst_loss(-teacher, teacher, kernel=kernel).item()
    assert flipped < 1e-12 if kernel == "poly" else flipped > 1e-2


@pytest.mark.parametrize("size", [FEW_POSITIONS, MANY_POSITIONS])
@pytest.mark.parametrize("kernel", KERNELS)
def test_scale_and_order_of_channels_do_not_matter(kernel: str, size: tuple[int, int]) -> None:
    student, teacher = maps(4, size), maps(7, size, seed=1)
    value = nst_loss(student, teacher, kernel=kernel).item()
    scales = torch.tensor([1e-3, 3.0, 1e4, 50.0], dtype=torch.float64).reshape(4, 1, 1)
    assert nst_loss((student * scales)[:, [2, 0, 3, 1]], teacher, kernel=kernel).item() == pytest.approx(value, rel=1e-10)
    assert nst_loss(student.flip(3), teacher, kernel=kernel).item() != pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [FEW_POSITIONS, MANY_POSITIONS])
def test_float32_is_never_below_zero(kernel: str, size: tuple[int, int]) -> None:
    """Nearly equal sets, whose kernel means are differences of nearly equal numbers."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        teacher = torch.rand(2, 5, *size, generator=generator) + 10
        student = (teacher[:, torch.randperm(5, generator=generator)] * (1 + 1e-6)).requires_grad_()
        value = nst_loss(student, teacher, kernel=kernel)
        value.backward()
        assert 0 <= value.item() < 1e-5
        assert student.grad.isfinite().all()
