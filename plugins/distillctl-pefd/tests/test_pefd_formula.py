"""`pefd` against its definition in plain Python loops, and what must hold of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_pefd.losses import cosine, ensemble_loss
from distillctl_pefd.method import PEFD
from distillctl_pefd.plugin import SPEC

B, STUDENT, WIDTH = 4, 5, 6


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_loops(student: list, teacher: list, weights: list, biases: list) -> float:
    """weights [q][d_t][d_s], biases [q][d_t]."""
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        mean = [0.0] * len(t)
        for weight, bias in zip(weights, biases, strict=True):
            for d, (row, offset) in enumerate(zip(weight, bias, strict=True)):
                mean[d] += max(sum(w * v for w, v in zip(row, s, strict=True)) + offset, 0.0) / len(weights)
        inner = sum(a * b for a, b in zip(mean, t, strict=True))
        total += 1 - inner / (sum(a * a for a in mean) * sum(b * b for b in t)) ** 0.5
    return total / len(student)


def build(projectors: int = 3) -> PEFD:
    torch.manual_seed(0)
    setup = make_setup({"pooled": (STUDENT,)}, {"pooled": (WIDTH,)})
    return PEFD(options_of(SPEC, projectors=projectors), setup).double()


def loss_of(method: PEFD, student: Tensor, teacher: Tensor) -> Tensor:
    return method.terms(make_batch(make_setup({}, {}), len(student)), {"pooled": student}, {"pooled": teacher}, make_progress())[""]


@pytest.mark.parametrize("projectors", [1, 2, 3, 5])
def test_formula(projectors: int) -> None:
    method = build(projectors)
    student, teacher = draw(B, STUDENT), draw(B, WIDTH, seed=1)
    weights = method.projectors.weight.reshape(projectors, WIDTH, STUDENT).tolist()
    biases = method.projectors.bias.reshape(projectors, WIDTH).tolist()
    value = loss_of(method, student, teacher)
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(by_loops(student.tolist(), teacher.tolist(), weights, biases), rel=1e-10)


def test_value_by_hand() -> None:
    """Two projectors give (2, −3) and (0, 4): h = (1, 2), and the cosine with (4, 3) is 10 / (√5 · 5)."""
    projected = torch.tensor([[[2.0, -3.0], [0.0, 4.0]]], dtype=torch.float64)
    target = torch.tensor([[4.0, 3.0]], dtype=torch.float64)
    assert ensemble_loss(projected, target).item() == pytest.approx(1 - 2 / 5**0.5, rel=1e-10)


def test_between_0_and_1_for_a_target_without_negative_values() -> None:
    projected, target = draw(200, 3, WIDTH), draw(200, WIDTH, seed=1).relu()
    rows = 1 - cosine(projected.relu().mean(1), target)
    assert rows.min() >= 0
    assert rows.max() <= 1
    assert 0 < ensemble_loss(projected, target) < 1


def test_zero_where_the_ensemble_points_where_the_teacher_does() -> None:
    projected = draw(B, 3, WIDTH)
    assert ensemble_loss(projected, 7 * projected.relu().mean(1)).item() == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("factor", [1e-2, 3.0, 1e4])
def test_length_of_the_target_does_not_matter(factor: float) -> None:
    projected, target = draw(B, 3, WIDTH), draw(B, WIDTH, seed=1)
    scales = factor * torch.tensor([[1.0], [2.0], [0.5], [3.0]])
    torch.testing.assert_close(ensemble_loss(projected, scales * target), ensemble_loss(projected, target), rtol=1e-7, atol=0)


@pytest.mark.parametrize("zero", ["ensemble", "target", "both"])
def test_zero_vectors_count_1_and_have_finite_gradients(zero: str) -> None:
    """Division by a length of zero would give NaN."""
    projected = draw(B, 3, WIDTH).float()
    target = draw(B, WIDTH, seed=1).float()
    if zero != "target":
        projected[0] = -1.0  # the ReLUs make it a zero vector
        projected[1] = 0.0
    if zero != "ensemble":
        target[:2] = 0.0
    projected.requires_grad_()
    rows = 1 - cosine(projected.relu().mean(1), target)
    assert rows[:2].tolist() == [1.0, 1.0]
    ensemble_loss(projected, target).backward()
    assert projected.grad.isfinite().all()
    assert (projected.grad[2:] != 0).any()


def test_equal_projectors_are_one() -> None:
    projected, target = draw(B, 1, WIDTH), draw(B, WIDTH, seed=1)
    torch.testing.assert_close(ensemble_loss(projected.expand(B, 3, WIDTH), target), ensemble_loss(projected, target))


def test_order_of_the_projectors_does_not_matter() -> None:
    projected, target = draw(B, 3, WIDTH), draw(B, WIDTH, seed=1)
    torch.testing.assert_close(ensemble_loss(projected[:, [2, 0, 1]], target), ensemble_loss(projected, target))
