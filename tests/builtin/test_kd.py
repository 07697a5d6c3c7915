"""`kd` and `none`."""

import math

import pytest
import torch
from pydantic import ValidationError

from distillctl.builtin.kd import KD
from distillctl.builtin.methods import register_method
from distillctl.builtin.none import NoMethod
from distillctl.testing import make_batch, make_features, make_progress, make_setup, options_of

NONE, SPEC, _ = register_method()
SETUP = make_setup({}, {}, num_classes=6)


def kd(student, teacher, temperature=4.0):
    method = KD(options_of(SPEC, temperature=temperature), SETUP)
    return method.terms(make_batch(SETUP, len(student)), {"logits": student}, {"logits": teacher}, make_progress())[""]


@pytest.fixture
def logits():
    return tuple(make_features(SETUP.student, 5, seed)["logits"].double() for seed in (0, 1))


def by_loops(student, teacher, t_student, t_teacher):
    total = 0.0
    for z_s, z_t in zip(student.tolist(), teacher.tolist(), strict=True):
        e_s, e_t = [math.exp(v / t_student) for v in z_s], [math.exp(v / t_teacher) for v in z_t]
        for a, b in zip(e_t, e_s, strict=True):
            total += a / sum(e_t) * (math.log(a / sum(e_t)) - math.log(b / sum(e_s)))
    return t_student * t_teacher * total / len(student)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_formula(logits, temperature):
    student, teacher = logits
    assert kd(student, teacher, temperature).item() == pytest.approx(by_loops(student, teacher, temperature, temperature), rel=1e-12)


def test_two_temperatures(logits):
    student, teacher = logits
    value = kd(student, teacher, {"teacher": 4.0, "student": 2.0})
    assert value.item() == pytest.approx(by_loops(student, teacher, 2.0, 4.0), rel=1e-12)
    equal = kd(student, teacher, {"teacher": 3.0, "student": 3.0})
    assert equal.item() == pytest.approx(kd(student, teacher, 3.0).item(), rel=1e-12)


def test_temperature_of_a_wrapper_replaces_both(logits):
    student, teacher = logits
    method = KD(options_of(SPEC, temperature={"teacher": 4.0, "student": 2.0}), SETUP)
    value = method.terms(make_batch(SETUP, 5), {"logits": student}, {"logits": teacher}, make_progress(), temperature=torch.tensor(7.0))[""]
    assert value.item() == pytest.approx(by_loops(student, teacher, 7.0, 7.0), rel=1e-12)


def test_zero_value_and_gradient_at_equality_up_to_a_shift(logits):
    _, teacher = logits
    student = (teacher + torch.arange(5)[:, None]).requires_grad_()
    value = kd(student, teacher)
    value.backward()
    assert abs(value.item()) < 1e-12
    assert student.grad.abs().max() < 1e-12


def test_never_negative_and_blind_to_shifts(logits):
    student, teacher = logits
    value = kd(student, teacher)
    assert value > 0
    assert kd(student + 3.0, teacher - torch.arange(5)[:, None]).item() == pytest.approx(value.item(), rel=1e-10)


def test_limit_of_a_high_temperature(logits):
    """(1/2C) · ‖(z_s − mean z_s) − (z_t − mean z_t)‖², mean over the batch: T² keeps the size of the loss."""
    student, teacher = logits
    difference = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    limit = (difference**2).sum(1).mean() / (2 * student.shape[1])
    assert kd(student, teacher, 1e4).item() == pytest.approx(limit.item(), rel=1e-3)


def test_gradient_does_not_vanish_with_the_temperature(logits):
    """A loss without T² would have a gradient some 1e4 times smaller at T = 100 than at T = 1."""
    norms = {}
    for temperature in (4.0, 400.0):
        student = logits[0].clone().requires_grad_()
        kd(student, logits[1], temperature).backward()
        norms[temperature] = student.grad.norm().item()
    assert norms[400.0] == pytest.approx(norms[4.0], rel=1.0)


@pytest.mark.parametrize("temperature", [0, -1.0, "4", True, {"teacher": 4.0}, {"teacher": 4.0, "student": 0.0}, float("inf")])
def test_wrong_temperatures_are_refused(temperature):
    with pytest.raises(ValidationError, match=r"for KDOptions\ntemperature\b"):
        options_of(SPEC, temperature=temperature)


def test_defaults():
    assert (options_of(SPEC).temperature, SPEC.weight, SPEC.task_weight) == (4.0, 0.9, 0.1)


def test_none_adds_nothing():
    method = NoMethod(options_of(NONE), make_setup({}, None))
    batch = make_batch(SETUP, 3)
    assert method.terms(batch, make_features(SETUP.student, 3), {}, make_progress()) == {}
    assert method.parameter_groups() == []
    assert not NONE.needs_teacher
    assert (NONE.weight, NONE.task_weight) == (1.0, 1.0)
