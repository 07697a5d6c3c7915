"""`ttm` and `wttm` against their definition in plain Python loops, and what must hold of them."""

import math

import pytest
import torch

from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_ttm.losses import powered, ttm_loss
from distillctl_ttm.method import TTM, WTTM
from distillctl_ttm.plugin import TTM as TTM_SPEC
from distillctl_ttm.plugin import WTTM as WTTM_SPEC

BOTH = pytest.mark.parametrize("weighted", [False, True], ids=["ttm", "wttm"])


def draw(rows=5, classes=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(rows, classes, dtype=torch.float64, generator=generator) for _ in range(2)]


def softmax(values):
    exponentials = [math.exp(v - max(values)) for v in values]
    return [e / sum(exponentials) for e in exponentials]


def by_loops(student, teacher, gamma, weighted):
    total = 0.0
    for z_s, z_t in zip(student.tolist(), teacher.tolist(), strict=True):
        powers = [p**gamma for p in softmax(z_t)]
        size = sum(powers)
        divergence = sum(a / size * math.log(a / size / b) for a, b in zip(powers, softmax(z_s), strict=True))
        total += size * divergence if weighted else divergence
    return total / len(student)


@BOTH
@pytest.mark.parametrize("gamma", [0.1, 0.2, 1.0, 2.5])
@pytest.mark.parametrize(("rows", "classes"), [(5, 7), (1, 3), (8, 2)])
def test_formula(rows, classes, gamma, weighted):
    student, teacher = draw(rows, classes, seed=rows)
    loss = ttm_loss(student, teacher, gamma, weighted=weighted)
    assert (loss.shape, loss.dtype) == ((), torch.float64)
    assert loss.item() == pytest.approx(by_loops(student, teacher, gamma, weighted), rel=1e-12)


@pytest.mark.parametrize(("method", "spec", "gamma", "weighted"), [(TTM, TTM_SPEC, 0.1, False), (WTTM, WTTM_SPEC, 0.2, True)])
def test_the_methods_compute_it_by_their_defaults(method, spec, gamma, weighted):
    student, teacher = draw()
    setup = make_setup({}, {}, num_classes=7)
    terms = method(options_of(spec), setup).terms(make_batch(setup, 5), {"logits": student}, {"logits": teacher}, make_progress())
    assert [*terms] == [""]
    assert terms[""].item() == pytest.approx(by_loops(student, teacher, gamma, weighted), rel=1e-12)


def test_value_by_hand():
    """p_t = (4/5, 1/5), γ = ½: U = 3/√5, q = (2/3, 1/3); p_s = (1/2, 1/2)."""
    teacher, student = torch.tensor([[4.0, 1.0]], dtype=torch.float64).log(), torch.zeros(1, 2, dtype=torch.float64)
    divergence = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    assert ttm_loss(student, teacher, 0.5).item() == pytest.approx(divergence, rel=1e-12)
    assert ttm_loss(student, teacher, 0.5, weighted=True).item() == pytest.approx(3 / 5**0.5 * divergence, rel=1e-12)


def test_with_the_power_1_both_are_distillation_without_temperature():
    student, teacher = draw()
    expected = torch.nn.functional.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="batchmean")
    assert ttm_loss(student, teacher, 1.0).item() == pytest.approx(expected.item(), rel=1e-12)
    assert ttm_loss(student, teacher, 1.0, weighted=True).item() == pytest.approx(expected.item(), rel=1e-12)


def test_a_power_is_a_temperature_of_the_teacher_alone():
    """No factor of T², and the student's logits are not divided."""
    student, teacher = draw()
    warm = torch.nn.functional.kl_div(student.log_softmax(1), (teacher / 4).softmax(1), reduction="batchmean")
    assert ttm_loss(student, teacher, 0.25).item() == pytest.approx(warm.item(), rel=1e-12)


def test_a_power_near_0_makes_the_teacher_uniform():
    student, teacher = draw()
    uniform = (-math.log(7) - student.log_softmax(1).mean(1)).mean()
    assert ttm_loss(student, teacher, 1e-8).item() == pytest.approx(uniform.item(), rel=1e-6)


@BOTH
def test_rows_may_be_shifted(weighted):
    student, teacher = draw()
    shift = torch.tensor([[3.0], [-20.0], [0.5], [100.0], [7.0]], dtype=torch.float64)
    before = ttm_loss(student, teacher, 0.2, weighted=weighted).item()
    assert ttm_loss(student + shift, teacher, 0.2, weighted=weighted).item() == pytest.approx(before, rel=1e-11)
    assert ttm_loss(student, teacher + shift, 0.2, weighted=weighted).item() == pytest.approx(before, rel=1e-11)


@BOTH
@pytest.mark.parametrize("gamma", [0.2, 1.0])
def test_zero_with_zero_gradient_where_the_student_has_the_powered_answer(gamma, weighted):
    _, teacher = draw()
    student = (gamma * teacher + 5.0).requires_grad_()
    loss = ttm_loss(student, teacher, gamma, weighted=weighted)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert student.grad.abs().max() < 1e-12
    assert ttm_loss(-teacher, teacher, gamma, weighted=weighted) > 0.01


def test_images_of_which_the_teacher_is_unsure_count_more():
    """U is 1 for a certain teacher, C^(1 − γ) for one that knows nothing, and in between otherwise."""
    certain, ignorant = torch.tensor([[1e4, 0.0, 0.0, 0.0]]), torch.zeros(1, 4)
    _, between = draw(50, 4)
    assert powered(certain, 0.2)[1].exp().item() == pytest.approx(1.0)
    assert powered(ignorant, 0.2)[1].exp().item() == pytest.approx(4**0.8)
    sums = powered(between, 0.2)[1].exp()
    assert sums.shape == (50, 1)
    assert (sums > 1).all()
    assert (sums < 4**0.8).all()


@BOTH
def test_gradient_is_that_of_the_formula(weighted):
    student, teacher = draw(3, 4)
    assert torch.autograd.gradcheck(lambda z: ttm_loss(z, teacher, 0.2, weighted=weighted), student.requires_grad_())


@BOTH
@pytest.mark.parametrize("gamma", [1e-4, 0.1, 1.0, 1e3])
@pytest.mark.parametrize("sure", ["student", "teacher", "both", "wrong"])
def test_sure_networks_stay_finite(sure, gamma, weighted):
    """Of probabilities that are 0 a power is 0, and its logarithm is not a number."""
    peak, zeros = 1e4 * torch.eye(2, 5), torch.zeros(2, 5)
    student = {"student": peak, "teacher": zeros, "both": peak, "wrong": 1e4 * torch.eye(5)[[2, 3]]}[sure].clone().requires_grad_()
    loss = ttm_loss(student, zeros if sure == "student" else peak, gamma, weighted=weighted)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
