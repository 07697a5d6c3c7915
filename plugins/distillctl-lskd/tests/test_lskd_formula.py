"""`lskd`: the Z-score and KD on it, again as plain loops; what the value does not depend on; the peers' bugs."""

import math

import pytest
import torch

from distillctl import kd_loss
from distillctl.builtin.kd import KD
from distillctl.builtin.methods import register_method
from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_dkd.method import DKD
from distillctl_dkd.plugin import SPEC as DKD_SPEC
from distillctl_lskd.losses import EPS, standardise
from distillctl_lskd.method import LSKD
from distillctl_lskd.plugin import SPEC

KD_SPEC = next(spec for spec in register_method() if spec.name == "kd")
SETUP = make_setup({}, {}, num_classes=6)


def lskd(inner=None, **options):
    return LSKD(options_of(SPEC, **options), SETUP, KD(options_of(KD_SPEC), SETUP) if inner is None else inner)


def logits(rows=5, classes=6, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(rows, classes, dtype=torch.float64, generator=generator) for _ in range(2)]


def value(method, student, teacher, **extra):
    batch = make_batch(SETUP, len(student))
    terms = method.terms(batch, {"logits": student}, {"logits": teacher}, make_progress(), **extra)
    return torch.stack(list(terms.values())).sum()


def z_by_loops(row, eps=EPS):
    mean = sum(row) / len(row)
    variance = sum((v - mean) ** 2 for v in row) / (len(row) - 1)
    return [(v - mean) / math.sqrt(variance + eps) for v in row]


def kd_by_loops(student, teacher, temperature):
    total = 0.0
    for z_s, z_t in zip(student, teacher, strict=True):
        e_s, e_t = [math.exp(v / temperature) for v in z_s], [math.exp(v / temperature) for v in z_t]
        for a, b in zip(e_t, e_s, strict=True):
            total += a / sum(e_t) * (math.log(a / sum(e_t)) - math.log(b / sum(e_s)))
    return temperature**2 * total / len(student)


@pytest.mark.parametrize(("rows", "classes"), [(1, 3), (4, 6), (7, 20)])
def test_z_score(rows, classes):
    z, _ = logits(rows, classes)
    expected = torch.tensor([z_by_loops(row) for row in z.tolist()], dtype=torch.float64)
    torch.testing.assert_close(standardise(z), expected, rtol=1e-12, atol=1e-12)


def test_z_score_by_hand():
    """1, 2, 3: mean 2, unbiased variance 1."""
    torch.testing.assert_close(standardise(torch.tensor([[1.0, 2.0, 3.0]]), eps=0.0), torch.tensor([[-1.0, 0.0, 1.0]]))


def test_z_score_is_that_of_the_unbiased_deviation():
    z, _ = logits()
    torch.testing.assert_close(standardise(z), (z - z.mean(1, keepdim=True)) / (1e-7 + z.std(1, keepdim=True)), rtol=1e-6, atol=1e-7)
    assert standardise(z).std(1) == pytest.approx(torch.ones(5), abs=1e-6)


@pytest.mark.parametrize("temperature", [None, 1.0, 4.0])
def test_formula(temperature):
    student, teacher = logits()
    scored = [[z_by_loops(row) for row in side.tolist()] for side in (student, teacher)]
    expected = kd_by_loops(*scored, temperature or 2.0)
    assert value(lskd(temperature=temperature), student, teacher).item() == pytest.approx(expected, rel=1e-10)


def test_terms_of_the_inner_method_keep_their_names_and_values():
    inner = DKD(options_of(DKD_SPEC, temperature=3.0), SETUP)
    student, teacher = logits()
    batch = make_batch(SETUP, 5)
    terms = lskd(inner, temperature=3.0).terms(batch, {"logits": student}, {"logits": teacher}, make_progress())
    alone = inner.terms(batch, {"logits": standardise(student)}, {"logits": standardise(teacher)}, make_progress())
    assert terms.keys() == alone.keys() == {"tckd", "nckd"}
    assert all(terms[name] == alone[name] for name in terms)


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_does_not_change_with_a_positive_affine_map_of_each_row(side):
    student, teacher = logits()
    scale = torch.tensor([[0.5], [2.0], [30.0], [0.8], [1.0]], dtype=torch.float64)
    shift = torch.tensor([[-3.0], [100.0], [0.0], [7.0], [-0.1]], dtype=torch.float64)
    changed = [z * scale + shift if name == side else z for name, z in (("student", student), ("teacher", teacher))]
    before = value(lskd(), student, teacher)
    torch.testing.assert_close(value(lskd(), *changed), before, rtol=1e-5, atol=0)
    negative = [-z if name == side else z for name, z in (("student", student), ("teacher", teacher))]
    assert not torch.isclose(value(lskd(), *negative), before, rtol=0.1)


def test_zero_with_zero_gradient_where_the_student_is_an_affine_map_of_the_teacher():
    _, teacher = logits()
    student = (2.0 * teacher + 5.0).requires_grad_()
    loss = value(lskd(), student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert student.grad.abs().max() < 1e-6
    assert value(lskd(), -teacher, teacher) > 0.1


def test_no_probability_gets_near_one():
    """|Z| ≤ (C − 1)/√C: a one-hot row of 100 classes at T = 2 has the largest peak there can be."""
    z = torch.nn.functional.one_hot(torch.tensor([3]), 100).double() * 1e4
    assert standardise(z).max().item() == pytest.approx(99 / math.sqrt(100), rel=1e-6)
    assert (standardise(z) / 2).softmax(1).max().item() == pytest.approx(0.60, abs=0.005)


def test_gradient_goes_through_mean_and_deviation():
    student, teacher = logits(3)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: value(lskd(), z, teacher), (student,), rtol=1e-4)
    value(lskd(), student, teacher).backward()
    # Neither a shift nor a stretch of a row changes the loss, so the gradient is orthogonal to both.
    assert student.grad.sum(1).abs().max() < 1e-10
    assert (student.grad * (student - student.mean(1, keepdim=True))).sum(1).abs().max() < 1e-5


@pytest.mark.parametrize("row", [0.0, 2.5, 1e4])
def test_equal_logits_have_a_bounded_gradient(row):
    """The first step of a classifier that starts at zero: the authors' 1e-7 beside the deviation gives factors of 1e7."""
    student = torch.full((4, 6), row, requires_grad=True)
    teacher = logits(4)[1].float()
    loss = value(lskd(), student, teacher)
    loss.backward()
    scored = torch.zeros(4, 6, requires_grad=True)
    kd_loss(scored, standardise(teacher), 2.0, 2.0).backward()
    assert loss.isfinite()
    assert 0 < student.grad.abs().max() <= 1010 * scored.grad.abs().max()


def test_d25_logits_are_standardised_and_not_the_other_way_round():
    """The authors' variant of CTKD has its flag inverted: it standardises when it is told not to."""
    student, teacher = logits()
    with_lskd, without = (
        value(lskd(temperature=4.0), student, teacher),
        value(KD(options_of(KD_SPEC, temperature=4.0), SETUP), student, teacher),
    )
    torch.testing.assert_close(with_lskd, kd_loss(standardise(student), standardise(teacher), 4.0, 4.0))
    torch.testing.assert_close(without, kd_loss(student, teacher, 4.0, 4.0))
    assert not torch.isclose(with_lskd, without, rtol=0.1)


def test_d26_the_large_weight_is_that_of_lskd_alone():
    """The authors' code has 9 as the weight of plain KD too, which makes its baseline another one."""
    assert (SPEC.weight, SPEC.task_weight) == (9.0, 0.1)
    assert (KD_SPEC.weight, KD_SPEC.task_weight) == (0.9, 0.1)


def test_d27_the_factor_t2_is_always_there():
    student, teacher = logits()
    for temperature in (1.0, 2.0, 5.0):
        bare = kd_by_loops(standardise(student).tolist(), standardise(teacher).tolist(), temperature) / temperature**2
        assert value(lskd(temperature=temperature), student, teacher).item() == pytest.approx(temperature**2 * bare, rel=1e-10)
