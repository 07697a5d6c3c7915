"""`pkt` against its definition in plain Python loops, and what must hold of it."""

import math

import pytest
import torch
from pydantic import ValidationError

from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_pkt.losses import affinities, pkt_loss
from distillctl_pkt.method import PKT
from distillctl_pkt.plugin import SPEC


def draw(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def numbers(value):
    return [x for part in value for x in numbers(part)] if isinstance(value, list) else [value]


def affinities_by_loops(features):
    flat = [numbers(sample) for sample in features.tolist()]
    result = []
    for a in flat:
        row = []
        for b in flat:
            cosine = sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
            row.append((cosine + 1) / 2)
        result.append([s / sum(row) for s in row])
    return result


def by_loops(student, teacher, eps):
    ours, theirs = affinities_by_loops(student), affinities_by_loops(teacher)
    total = 0.0
    for row_s, row_t in zip(ours, theirs, strict=True):
        for s, t in zip(row_s, row_t, strict=True):
            total += t * math.log((t + eps) / (s + eps))
    return total / len(ours) ** 2


@pytest.mark.parametrize("eps", [1e-7, 1e-2])
@pytest.mark.parametrize(("student", "teacher"), [((5, 3), (5, 7)), ((2, 6), (2, 3)), ((7, 2, 3, 1), (7, 9))])
def test_formula(student, teacher, eps):
    student, teacher = draw(*student, seed=0), draw(*teacher, seed=1)
    loss = pkt_loss(student, teacher, eps)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(by_loops(student, teacher, eps), rel=1e-9)


def test_eps_and_stages_reach_the_formula():
    setup = make_setup({"pooled": (3,), "last": (2, 2, 2)}, {"pooled": (4,)})
    options = options_of(SPEC, student_stage="last", eps=1e-2)
    method, wants = PKT(options, setup), PKT.wants(options)
    assert (wants.student, wants.teacher) == (("last",), ("pooled",))
    student, teacher = {"last": draw(4, 2, 2, 2, seed=0)}, {"pooled": draw(4, 4, seed=1)}
    (loss,) = method.terms(make_batch(setup, 4), student, teacher, make_progress()).values()
    assert loss.item() == pytest.approx(by_loops(student["last"], teacher["pooled"], 1e-2), rel=1e-9)


# -- invariants -------------------------------------------------------------------------------------------------------


def test_rows_are_probabilities():
    p = affinities(draw(6, 5, seed=0))
    torch.testing.assert_close(p.sum(1), torch.ones(6, dtype=torch.float64))
    assert (p >= 0).all()


def test_zero_value_and_gradient_at_equality():
    teacher = draw(6, 5, seed=0)
    student = teacher.clone().requires_grad_()
    loss = pkt_loss(student, teacher)
    loss.backward()
    assert loss == 0
    assert student.grad.abs().max() < 1e-7  # what is left comes from eps


def test_value_is_positive_elsewhere():
    assert all(pkt_loss(draw(6, 5, seed=seed), draw(6, 5, seed=seed + 50)) > 0 for seed in range(10))


def test_scale_of_each_sample_does_not_matter():
    student, teacher, scales = draw(6, 5, seed=0), draw(6, 8, seed=1), torch.logspace(-3, 4, 6, dtype=torch.float64).unsqueeze(1)
    expected = pkt_loss(student, teacher)
    torch.testing.assert_close(pkt_loss(student * scales, teacher), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(pkt_loss(student, teacher * scales), expected, rtol=1e-9, atol=0)
    assert not torch.isclose(pkt_loss(student + 1, teacher), expected, rtol=1e-3)


def test_student_moves_towards_the_teacher():
    student, teacher = draw(6, 5, seed=0).requires_grad_(), draw(6, 8, seed=1)
    before = pkt_loss(student, teacher)
    before.backward()
    assert pkt_loss((student - student.grad).detach(), teacher) < before


# -- special inputs ---------------------------------------------------------------------------------------------------


def test_batch_of_one_is_zero_with_a_graph():
    student = draw(1, 3, seed=0).requires_grad_()
    loss = pkt_loss(student, draw(1, 8, seed=1))
    loss.backward()
    assert loss == 0
    assert (student.grad == 0).all()


def test_feature_of_zeros_has_a_finite_gradient():
    """The peers' is NaN, from the square root of 0."""
    student = draw(5, 6, seed=0)
    student[2] = 0
    student.requires_grad_()
    loss = pkt_loss(student, draw(5, 6, seed=1))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 10
    torch.testing.assert_close(affinities(student.detach())[2], torch.tensor([0.2] * 5, dtype=torch.float64))  # all are equally near


def test_opposite_features_stay_finite():
    """In float32 the cosine of a vector and its negative may fall below −1."""
    half = torch.randn(40, 2048, generator=torch.Generator().manual_seed(0))
    for i in range(0, 40, 2):
        pair = torch.stack([half[i], -half[i]]).requires_grad_()
        loss = pkt_loss(pair, half[:2])
        loss.backward()
        assert loss.isfinite()
        assert pair.grad.isfinite().all()


def test_feature_is_not_changed_in_place():
    student = draw(5, 6, seed=0)
    student[1] = 0
    before = student.clone()
    pkt_loss(student, student)
    assert torch.equal(student, before)


# -- options ----------------------------------------------------------------------------------------------------------


def test_defaults():
    options = options_of(SPEC)
    assert (options.student_stage, options.teacher_stage, options.eps) == ("pooled", "pooled", 1e-7)
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs) == (30000.0, 1.0, 0.0)


@pytest.mark.parametrize("options", [{"eps": 0.0}, {"student_stage": "stages"}, {"teacher_stage": ""}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValidationError, match=rf"for \w+\n{[*options][-1]}\b"):
        options_of(SPEC, **options)
