"""`vid` against its definition in plain Python loops, and what must hold of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_vid.losses import gaussian_loss, rho_of, variance_of
from distillctl_vid.method import VID
from distillctl_vid.plugin import SPEC

STUDENT = {"stage1": (2, 4, 6), "stage2": (3, 2, 3)}
TEACHER = {"stage1": (3, 4, 6), "stage2": (4, 2, 3)}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mix(pixel: list[float], weight: list[list[float]], relu: bool) -> list[float]:
    """A 1×1 convolution without bias, for one pixel."""
    out = [sum(w * v for w, v in zip(row, pixel, strict=True)) for row in weight]
    return [max(v, 0.0) for v in out] if relu else out


def pair_by_loops(student: Tensor, teacher: Tensor, weights: list[Tensor], rho: list[float], eps: float) -> float:
    first, second, third = (weight[:, :, 0, 0].tolist() for weight in weights)
    total, count = 0.0, 0
    size, _, height, width = student.shape
    for b in range(size):
        for i in range(height):
            for j in range(width):
                hidden = mix(mix(student[b, :, i, j].tolist(), first, True), second, True)
                for c, mean in enumerate(mix(hidden, third, False)):
                    variance = math.log(1 + math.exp(rho[c])) + eps
                    total += ((mean - teacher[b, c, i, j].item()) ** 2 / variance + math.log(variance)) / 2
                    count += 1
    return total / count


@pytest.mark.parametrize("eps", [1e-5, 0.3])
def test_formula(eps: float) -> None:
    torch.manual_seed(0)
    method = VID(options_of(SPEC, eps=eps), make_setup(STUDENT, TEACHER)).double()
    for k, rho in enumerate(method.rhos):
        rho.data = 2 * draw(len(rho), seed=k)
    student = {name: draw(3, *shape, seed=k + 10) for k, (name, shape) in enumerate(STUDENT.items())}
    teacher = {name: draw(3, *shape, seed=k + 20) for k, (name, shape) in enumerate(TEACHER.items())}
    expected = 0.0
    for k, name in enumerate(STUDENT):
        weights = list(method.regressors[k].parameters())
        assert [tuple(w.shape[:2]) for w in weights] == [
            (TEACHER[name][0], n) for n in (STUDENT[name][0], TEACHER[name][0], TEACHER[name][0])
        ]
        expected += pair_by_loops(student[name], teacher[name], weights, method.rhos[k].tolist(), eps)
    value = method.terms(make_batch(make_setup({}, {}), 3), student, teacher, make_progress())[""]
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("larger", ["student", "teacher"])
def test_larger_map_is_pooled_first(larger: str) -> None:
    shapes = {"student": (2, 2, 3), "teacher": (3, 2, 3)}
    big = {**shapes, larger: (shapes[larger][0], 4, 6)}
    torch.manual_seed(0)
    method = VID(options_of(SPEC), make_setup({"stage1": big["student"]}, {"stage1": big["teacher"]})).double()
    features = {side: {"stage1": draw(3, *big[side])} for side in big}
    value = method(make_batch(make_setup({}, {}), 3), features["student"], features["teacher"], make_progress())
    features[larger]["stage1"] = features[larger]["stage1"].unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    small = method(make_batch(make_setup({}, {}), 3), features["student"], features["teacher"], make_progress())
    torch.testing.assert_close(value, small, rtol=1e-12, atol=0)


def test_value_by_hand() -> None:
    """Errors 2 and 0 in two channels of variances 4 and 1: ½ · mean(4/4 + log 4, 0)."""
    mean, target = torch.zeros(1, 2, 1, 1), torch.tensor([2.0, 0.0]).reshape(1, 2, 1, 1)
    assert gaussian_loss(mean, target, torch.tensor([4.0, 1.0])).item() == pytest.approx((1 + math.log(4)) / 4)


def test_best_variance_of_a_channel_is_its_mean_squared_error() -> None:
    mean, target = draw(5, 4, 2, 3, seed=1), 3 * draw(5, 4, 2, 3, seed=2)
    errors = (mean - target).square().transpose(0, 1).flatten(1).mean(1)
    best = errors.clone().requires_grad_()
    value = gaussian_loss(mean, target, best)
    value.backward()
    assert best.grad.abs().max() < 1e-15
    for c in range(4):
        for factor in (0.8, 1.25):
            other = errors.clone()
            other[c] *= factor
            assert gaussian_loss(mean, target, other) > value


def test_perfect_prediction_leaves_half_the_logarithm_of_the_variance() -> None:
    """So it is no distance: below variances of 1 it is negative."""
    target, variance = draw(3, 2, 2, 2), torch.tensor([0.5, 0.1], dtype=torch.float64)
    assert gaussian_loss(target, target, variance).item() == pytest.approx((math.log(0.5) + math.log(0.1)) / 4)


@pytest.mark.parametrize("rho", [-80.0, -20.0, 0.0, 20.0, 80.0])
def test_finite_for_any_rho_up_to_80(rho: float) -> None:
    """Up to about 88 an exponential of float32 is finite, but log(1 + exp) is inexact and its gradient a quotient of large numbers."""
    parameter = torch.full((2,), rho, requires_grad=True)
    mean = draw(3, 2, 2, 2).float().requires_grad_()
    value = gaussian_loss(mean, draw(3, 2, 2, 2, seed=1).float(), variance_of(parameter, 1e-5))
    value.backward()
    assert value.isfinite()
    assert parameter.grad.isfinite().all()
    assert mean.grad.isfinite().all()
    expected = math.log1p(math.exp(rho)) + 1e-5
    torch.testing.assert_close(variance_of(parameter, 1e-5), torch.full((2,), expected))


def test_far_beyond_that_too() -> None:
    parameter = torch.tensor([-1e4, 1e4], requires_grad=True)
    variance_of(parameter, 1e-5).log().sum().backward()
    assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("variance", [1e-4, 0.1, 5.0, 300.0])
def test_rho_of_a_variance_gives_it_back(variance: float) -> None:
    rho = torch.tensor(rho_of(variance, 1e-5), dtype=torch.float64)
    assert variance_of(rho, 1e-5).item() == pytest.approx(variance, rel=1e-8)
