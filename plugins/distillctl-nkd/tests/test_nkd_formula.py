"""`nkd` against its definition in plain Python loops, and what must hold of it."""

import math
from types import SimpleNamespace

import pytest
import torch

from distillctl import Batch, is_target
from distillctl.testing import make_progress, make_setup, options_of
from distillctl_nkd.losses import other_loss, target_loss
from distillctl_nkd.method import NKD
from distillctl_nkd.plugin import SPEC

B, C = 5, 7


def nkd(student, teacher, labels, override=None, **options):
    """The terms; `override` is the temperature that a wrapper hands over."""
    method = NKD(options_of(SPEC, **options), make_setup({}, {}, num_classes=student.shape[1]))
    batch = Batch(torch.zeros(len(labels), 3, 4, 4), labels, torch.arange(len(labels)))
    extra = {} if override is None else {"temperature": override}
    return method.terms(batch, {"logits": student}, {"logits": teacher}, make_progress(), **extra)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(B, C, dtype=torch.float64, generator=generator) for _ in range(2))
    return SimpleNamespace(student=student, teacher=teacher, labels=torch.randint(C, (B,), generator=generator))


def softmax(values):
    exponentials = [math.exp(v - max(values)) for v in values]
    return [e / sum(exponentials) for e in exponentials]


def by_loops(student, teacher, labels, temperature):
    """Both parts without γ."""
    target = other = 0.0
    for z_s, z_t, g in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        target -= softmax(z_t)[g] * math.log(softmax(z_s)[g])
        q_s = softmax([z / temperature for i, z in enumerate(z_s) if i != g])
        q_t = softmax([z / temperature for i, z in enumerate(z_t) if i != g])
        other -= temperature**2 * sum(a * math.log(b) for a, b in zip(q_t, q_s, strict=True))
    return target / len(labels), other / len(labels)


@pytest.mark.parametrize(("temperature", "gamma"), [(1.0, 1.5), (3.0, 3.5), (2.5, 0.5)])
@pytest.mark.parametrize(("size", "classes"), [(5, 7), (1, 3), (8, 2)])
def test_formula(size, classes, temperature, gamma):
    generator = torch.Generator().manual_seed(size)
    student, teacher = (3 * torch.randn(size, classes, dtype=torch.float64, generator=generator) for _ in range(2))
    labels = torch.randint(classes, (size,), generator=generator)
    target, other = by_loops(student, teacher, labels, temperature)
    terms = nkd(student, teacher, labels, temperature=temperature, gamma=gamma)
    assert set(terms) == {"target", "other"}
    assert terms["target"].item() == pytest.approx(target, rel=1e-12)
    assert terms["other"].item() == pytest.approx(gamma * other, rel=1e-12, abs=1e-15)


def test_value_by_hand():
    """Three classes, target 0: p_t,0 = 1/2, p_s,0 = 1/4, q_t = (1/2, 1/2), q_s = (1/3, 2/3)."""
    teacher, student = torch.tensor([[2.0, 1.0, 1.0]]).log(), torch.tensor([[1.0, 1.0, 2.0]]).log()
    terms = nkd(student, teacher, torch.tensor([0]), gamma=2.0)
    assert terms["target"].item() == pytest.approx(0.5 * math.log(4))
    assert terms["other"].item() == pytest.approx(2 * 0.5 * (math.log(3) + math.log(1.5)))


def test_target_part_has_no_temperature(data):
    warm, cold = nkd(data.student, data.teacher, data.labels, temperature=4.0), nkd(data.student, data.teacher, data.labels)
    assert warm["target"] == cold["target"]
    assert warm["other"].item() != pytest.approx(cold["other"].item(), rel=1e-3)


def test_temperature_of_a_wrapper_replaces_the_option(data):
    terms = nkd(data.student, data.teacher, data.labels, torch.tensor(2.5), temperature=7.0)
    alone = nkd(data.student, data.teacher, data.labels, temperature=2.5)
    assert {k: v.item() for k, v in terms.items()} == pytest.approx({k: v.item() for k, v in alone.items()}, rel=1e-12)


def test_temperature_per_sample(data):
    temperatures = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]], dtype=torch.float64)
    terms = nkd(data.student, data.teacher, data.labels, temperatures, gamma=2.0)
    rows = [by_loops(data.student[i, None], data.teacher[i, None], data.labels[i, None], temperatures[i].item()) for i in range(B)]
    assert terms["target"].item() == pytest.approx(sum(r[0] for r in rows) / B, rel=1e-12)
    assert terms["other"].item() == pytest.approx(2 * sum(r[1] for r in rows) / B, rel=1e-12)


def test_gradient_reaches_the_temperature(data):
    temperature = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    nkd(data.student, data.teacher, data.labels, temperature)["other"].backward()
    slope = sum(sign * 1.5 * by_loops(data.student, data.teacher, data.labels, 2 + sign * 1e-6)[1] for sign in (1, -1)) / 2e-6
    assert temperature.grad.item() == pytest.approx(slope, rel=1e-6)


def test_d24_mask_has_exactly_one_target_per_row_and_leaves_the_others(data):
    target = is_target(data.labels, C)
    assert target.sum(1).tolist() == [1] * B
    assert target.nonzero()[:, 1].tolist() == data.labels.tolist()


def test_d24_other_part_does_not_see_the_target_logit(data):
    """With the target class left in, a sure teacher would make this part a second cross-entropy on the label."""
    moved = 5.0 * is_target(data.labels, C)
    before = other_loss(data.student, data.teacher, data.labels, 3.0)
    assert other_loss(data.student + moved, data.teacher, data.labels, 3.0).item() == pytest.approx(before.item(), rel=1e-12)
    assert other_loss(data.student, data.teacher + moved, data.labels, 3.0).item() == pytest.approx(before.item(), rel=1e-12)
    student = data.student.clone().requires_grad_()
    other_loss(student, data.teacher, data.labels, 3.0).backward()
    target = is_target(data.labels, C)
    assert (student.grad[target] == 0).all()
    assert (student.grad[~target] != 0).all()


def test_other_part_has_no_gradient_at_equality_but_a_floor(data):
    student = (data.teacher + torch.arange(B)[:, None]).requires_grad_()
    value = other_loss(student, data.teacher, data.labels, 3.0)
    value.backward()
    assert student.grad.abs().max() < 1e-14
    entropy = by_loops(data.teacher, data.teacher, data.labels, 3.0)[1]
    assert value.item() == pytest.approx(entropy, rel=1e-12)
    assert entropy > 0.1


def test_other_part_is_lowest_at_equality(data):
    floor = other_loss(data.teacher, data.teacher, data.labels, 2.0)
    assert other_loss(data.student, data.teacher, data.labels, 2.0) > floor + 0.1


def test_rows_may_be_shifted(data):
    shift = torch.tensor([[3.0], [-20.0], [0.5], [100.0], [7.0]], dtype=torch.float64)
    before = nkd(data.student, data.teacher, data.labels, temperature=3.0)
    for after in (
        nkd(data.student + shift, data.teacher, data.labels, temperature=3.0),
        nkd(data.student, data.teacher + shift, data.labels, temperature=3.0),
    ):
        assert {k: v.item() for k, v in after.items()} == pytest.approx({k: v.item() for k, v in before.items()}, rel=1e-11)


def test_without_gamma_the_other_part_is_not_computed(data):
    terms = nkd(data.student, data.teacher, data.labels, gamma=0.0)
    assert set(terms) == {"target"}
    assert terms["target"] == nkd(data.student, data.teacher, data.labels, gamma=0.0, temperature=9.0)["target"]
    assert terms["target"] == target_loss(data.student, data.teacher, data.labels)


@pytest.mark.parametrize("gap", [1e2, 5e2, 1e4])
@pytest.mark.parametrize("sure", ["student", "teacher", "both", "wrong"])
def test_sure_networks_stay_finite(gap, sure):
    labels = torch.tensor([0, 1])
    peak = gap * torch.eye(2, C)
    zeros = torch.zeros(2, C)
    student = {"student": peak, "teacher": zeros, "both": peak, "wrong": gap * torch.eye(C)[[2, 3]]}[sure].clone().requires_grad_()
    teacher = zeros if sure == "student" else peak
    terms = nkd(student, teacher, labels)
    sum(terms.values()).backward()
    assert all(term.isfinite() for term in terms.values())
    assert student.grad.isfinite().all()
    if sure == "wrong":
        assert terms["target"].item() == pytest.approx(gap, rel=1e-4)
        assert terms["other"].item() == pytest.approx(1.5 * gap * (C - 2) / (C - 1), rel=1e-4)
