"""`at` against its definition in plain Python loops, and what must hold of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distillctl_at.losses import at_loss, attention_map


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def attention_by_loops(image: list, power: float) -> list[float]:
    """One image (C, H, W) as nested lists."""
    height, width = len(image[0]), len(image[0][0])
    rows = [sum(abs(plane[i][j]) ** power for plane in image) / len(image) for i in range(height) for j in range(width)]
    norm = math.sqrt(sum(value**2 for value in rows))
    return [value / norm for value in rows]


def at_by_loops(student: Tensor, teacher: Tensor, power: float, mode: str) -> float:
    total, positions = 0.0, 0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        a, b = attention_by_loops(s, power), attention_by_loops(t, power)
        squares = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
        total += squares if mode == "code" else math.sqrt(squares)
        positions += len(a) if mode == "code" else 1
    return total / positions


@pytest.mark.parametrize("mode", ["code", "paper"])
@pytest.mark.parametrize("power", [1.0, 2.0, 2.5, 3.0])
def test_formula(power: float, mode: str) -> None:
    student, teacher = maps(4, 3, 5, 2), maps(4, 6, 5, 2, seed=1)
    value = at_loss(student, teacher, power=power, mode=mode)
    assert (value.shape, value.dtype) == ((), torch.float64)
    assert value.item() == pytest.approx(at_by_loops(student, teacher, power, mode), rel=1e-12)


def test_value_by_hand() -> None:
    """f² = (9, 16) and (1, 0): attention (9, 16)/√337 and (1, 0)."""
    student, teacher = torch.tensor([[[[3.0, -4.0]]]], dtype=torch.float64), torch.tensor([[[[1.0, 0.0]]]], dtype=torch.float64)
    squares = (9 / math.sqrt(337) - 1) ** 2 + 256 / 337
    assert at_loss(student, teacher).item() == pytest.approx(squares / 2, rel=1e-12)
    assert at_loss(student, teacher, mode="paper").item() == pytest.approx(math.sqrt(squares), rel=1e-12)


def test_gradient_is_that_of_the_formula() -> None:
    """The maximum that scales the activations is a constant to autograd and must leave no trace."""
    student, teacher = maps(2, 3, 2, 2).requires_grad_(), maps(2, 3, 2, 2, seed=1)
    assert torch.autograd.gradcheck(lambda x: at_loss(x, teacher, power=2.0), student)
    assert torch.autograd.gradcheck(lambda x: at_loss(x, teacher, power=3.0, mode="paper"), student)


@pytest.mark.parametrize("larger", ["student", "teacher"])
def test_larger_map_is_average_pooled_before_the_attention(larger: str) -> None:
    big, small = maps(3, 4, 6, 4), maps(3, 2, 3, 2, seed=1)
    pooled = big.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    pair, expected = ((big, small), (pooled, small)) if larger == "student" else ((small, big), (small, pooled))
    assert at_loss(*pair).item() == pytest.approx(at_by_loops(*expected, 2.0, "code"), rel=1e-12)


def test_rows_have_unit_length_and_zero_rows_none() -> None:
    features = maps(4, 3, 2, 5)
    features[1] = 0
    norms = torch.linalg.vector_norm(attention_map(features, 2.0), dim=1)
    torch.testing.assert_close(norms, torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("mode", ["code", "paper"])
@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("largest", [0.0, 1e-30, 9e-13])
def test_nearly_dead_maps_are_zeros_without_a_gradient(largest: float, power: float, mode: str) -> None:
    """Divided by 1e-12 a map of such values would get a gradient of the size 1e12."""
    features, teacher = maps(3, 4, 2, 2).float(), maps(3, 5, 2, 2, seed=1).float()
    features[1] *= largest / features[1].abs().max()
    features.requires_grad_()
    assert (attention_map(features, power)[1] == 0).all()
    at_loss(features, teacher, power=power, mode=mode).backward()
    assert (features.grad[1] == 0).all()
    assert (features.grad[[0, 2]].abs().amax((1, 2, 3)) > 0).all()
    assert features.grad.abs().max() < 10


@pytest.mark.parametrize("mode", ["code", "paper"])
def test_zero_value_and_gradient_at_equality(mode: str) -> None:
    teacher = maps(3, 4, 2, 2)
    student = teacher.clone().requires_grad_()
    value = at_loss(student, teacher, mode=mode)
    value.backward()
    assert value.item() == 0
    assert (student.grad == 0).all()


def test_scale_sign_and_order_of_channels_do_not_matter() -> None:
    student, teacher = maps(3, 4, 2, 3), maps(3, 5, 2, 3, seed=1)
    value = at_loss(student, teacher).item()
    order = torch.tensor([2, 0, 3, 1])
    scales = torch.tensor([1e-6, -3.0, 1e8], dtype=torch.float64).reshape(3, 1, 1, 1)
    for other in (student * scales, student[:, order], -student):
        assert at_loss(other, teacher).item() == pytest.approx(value, rel=1e-12)
    assert at_loss(student, teacher * scales).item() == pytest.approx(value, rel=1e-12)
    assert at_loss(student.flip(3), teacher).item() != pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("power", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("scale", [1e-6, 1e4, 1e15])
def test_float32_has_the_value_at_any_scale(scale: float, power: float) -> None:
    """1e15 squared twice, for the norm, is beyond float32."""
    student, teacher = maps(3, 4, 2, 3), maps(3, 5, 2, 3, seed=1)
    leaf = (student * scale).float().requires_grad_()
    value = at_loss(leaf, (teacher * scale).float(), power=power)
    value.backward()
    assert value.item() == pytest.approx(at_by_loops(student, teacher, power, "code"), rel=1e-5)
    assert leaf.grad.isfinite().all()
    assert leaf.grad.abs().max() > 0
