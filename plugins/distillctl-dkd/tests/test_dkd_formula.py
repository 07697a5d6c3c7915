"""`dkd` against its definition in plain Python loops, and what must hold of it."""

import math
from types import SimpleNamespace

import pytest
import torch

from distillctl import Batch, RunError, is_target
from distillctl.testing import make_progress, make_setup, options_of
from distillctl_dkd.method import DKD
from distillctl_dkd.plugin import SPEC

B, C = 5, 7


def batch_of(labels):
    return Batch(torch.zeros(len(labels), 3, 4, 4), labels, torch.arange(len(labels)))


def dkd(student, teacher, labels, override=None, **options):
    """The terms; `override` is the temperature that a wrapper hands over."""
    method = DKD(options_of(SPEC, **options), make_setup({}, {}, num_classes=student.shape[1]))
    extra = {} if override is None else {"temperature": override}
    return method.terms(batch_of(labels), {"logits": student}, {"logits": teacher}, make_progress(), **extra)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(B, C, dtype=torch.float64, generator=generator) for _ in range(2))
    labels = torch.randint(C, (B,), generator=generator)
    return SimpleNamespace(student=student, teacher=teacher, labels=labels)


def softmax(values):
    exponentials = [math.exp(v - max(values)) for v in values]
    return [e / sum(exponentials) for e in exponentials]


def divergence(p, q):
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


def by_loops(student, teacher, labels, temperature):
    target = other = 0.0
    for z_s, z_t, g in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        u_s, u_t = [v / temperature for v in z_s], [v / temperature for v in z_t]
        p_s, p_t = softmax(u_s)[g], softmax(u_t)[g]
        target += divergence([p_t, 1 - p_t], [p_s, 1 - p_s])
        other += divergence(softmax(u_t[:g] + u_t[g + 1 :]), softmax(u_s[:g] + u_s[g + 1 :]))
    return temperature**2 * target / len(labels), temperature**2 * other / len(labels)


@pytest.mark.parametrize(("temperature", "alpha", "beta"), [(4.0, 1.0, 8.0), (1.0, 1.0, 0.5), (2.5, 3.0, 2.0)])
def test_formula(data, temperature, alpha, beta):
    tckd, nckd = by_loops(data.student, data.teacher, data.labels, temperature)
    terms = dkd(data.student, data.teacher, data.labels, temperature=temperature, alpha=alpha, beta=beta)
    assert set(terms) == {"tckd", "nckd"}
    assert terms["tckd"].item() == pytest.approx(alpha * tckd, rel=1e-12)
    assert terms["nckd"].item() == pytest.approx(beta * nckd, rel=1e-12)


def test_temperature_of_a_wrapper_replaces_the_option(data):
    terms = dkd(data.student, data.teacher, data.labels, torch.tensor(2.5), temperature=7.0)
    alone = dkd(data.student, data.teacher, data.labels, temperature=2.5)
    assert {k: v.item() for k, v in terms.items()} == pytest.approx({k: v.item() for k, v in alone.items()}, rel=1e-12)


def test_zero_value_and_gradient_at_equality_up_to_a_shift(data):
    student = (data.teacher + torch.arange(B)[:, None]).requires_grad_()
    terms = dkd(student, data.teacher, data.labels)
    sum(terms.values()).backward()
    assert all(abs(term.item()) < 1e-12 for term in terms.values())
    assert student.grad.abs().max() < 1e-12


def test_nckd_does_not_see_the_target_logit_and_tckd_sees_only_the_gap(data):
    target = is_target(data.labels, C)
    before = dkd(data.student, data.teacher, data.labels)
    moved = dkd(data.student + 2.0 * target, data.teacher, data.labels)
    assert moved["nckd"].item() == pytest.approx(before["nckd"].item(), rel=1e-12)
    assert moved["tckd"].item() != pytest.approx(before["tckd"].item(), rel=1e-3)
    # Other logits for the other classes, shifted so that their log-sum-exp at T = 4 stays.
    other = torch.randn(B, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ell = [(z / 4).masked_fill(target, -torch.inf).logsumexp(1, keepdim=True) for z in (data.student, other)]
    changed = torch.where(target, data.student, other + 4 * (ell[0] - ell[1]))
    after = dkd(changed, data.teacher, data.labels)
    assert after["tckd"].item() == pytest.approx(before["tckd"].item(), rel=1e-9)
    assert after["nckd"].item() != pytest.approx(before["nckd"].item(), rel=1e-3)


def test_nckd_gives_the_target_logit_no_gradient_at_all(data):
    student = data.student.clone().requires_grad_()
    dkd(student, data.teacher, data.labels, alpha=0.0)["nckd"].backward()
    target = is_target(data.labels, C)
    assert (student.grad[target] == 0).all()
    assert (student.grad[~target] != 0).all()


def test_other_classes_may_change_places(data):
    labels = torch.full((B,), 2)
    order = torch.tensor([6, 0, 2, 5, 1, 4, 3])
    before, after = dkd(data.student, data.teacher, labels), dkd(data.student[:, order], data.teacher[:, order], labels)
    assert {k: v.item() for k, v in after.items()} == pytest.approx({k: v.item() for k, v in before.items()}, rel=1e-12)


def test_temperature_per_sample(data):
    temperatures = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]], dtype=torch.float64)
    terms = dkd(data.student, data.teacher, data.labels, temperatures)
    rows = [by_loops(data.student[i, None], data.teacher[i, None], data.labels[i, None], temperatures[i].item()) for i in range(B)]
    assert terms["tckd"].item() == pytest.approx(sum(r[0] for r in rows) / B, rel=1e-12)
    assert terms["nckd"].item() == pytest.approx(8 * sum(r[1] for r in rows) / B, rel=1e-12)


@pytest.mark.parametrize("gap", [1e2, 5e2, 1e4])
@pytest.mark.parametrize("sure", ["student", "teacher", "both", "wrong"])
def test_sure_networks_stay_finite(gap, sure):
    """The authors' form is infinite or NaN here. At T = 1 a wrong student is that much worse: about `gap` nats."""
    labels = torch.tensor([0, 1])
    peak = gap * torch.eye(2, C)
    zeros = torch.zeros(2, C)
    student = {"student": peak, "teacher": zeros, "both": peak, "wrong": gap * torch.eye(C)[[2, 3]]}[sure].clone().requires_grad_()
    teacher = zeros if sure == "student" else peak
    terms = dkd(student, teacher, labels, temperature=1.0)
    sum(terms.values()).backward()
    assert all(term.isfinite() for term in terms.values())
    assert student.grad.isfinite().all()
    if sure == "both":
        assert all(term == 0 for term in terms.values())
    if sure == "wrong":
        assert terms["tckd"].item() == pytest.approx(gap, rel=1e-4)


def test_factor_of_zero_leaves_a_term_out(data):
    assert set(dkd(data.student, data.teacher, data.labels, alpha=0.0)) == {"nckd"}
    assert set(dkd(data.student, data.teacher, data.labels, beta=0.0)) == {"tckd"}
    with pytest.raises(RunError, match="`alpha` and `beta`"):
        dkd(data.student, data.teacher, data.labels, alpha=0.0, beta=0.0)


def test_one_class_is_refused():
    with pytest.raises(RunError, match="at least 2 classes, not 1"):
        DKD(options_of(SPEC), make_setup({}, {}, num_classes=1, num_data=4))


@pytest.mark.parametrize(
    ("dataset", "teacher", "student", "values"),
    [
        ("cifar100", "resnet32x4", "resnet8x4", {"beta": 8.0}),
        ("cifar100", "wrn_40_2", "wrn_40_1", {"beta": 6.0}),
        ("cifar100", "vgg13", "MobileNetV2", {"beta": 6.0}),
        ("cifar100", "resnet110", "resnet32", {"beta": 2.0}),
        ("imagenet", "resnet34", "resnet18", {"temperature": 1.0, "beta": 0.5, "warmup_epochs": 1.0}),
        ("imagenet", "resnet50", "mobile*v1*", {"temperature": 1.0, "beta": 2.0, "warmup_epochs": 1.0}),
        ("coco", "", "", {"beta": 0.25, "temperature": 1.0, "warmup_epochs": 0.0}),
    ],
)
def test_presets_of_the_published_pairs(dataset, teacher, student, values):
    found = [p.values for p in SPEC.presets if (p.dataset, p.teacher, p.student) == (dataset, teacher, student)]
    assert found == [values]


def test_defaults():
    options = options_of(SPEC)
    assert (options.temperature, options.alpha, options.beta) == (4.0, 1.0, 8.0)
    assert (SPEC.weight, SPEC.task_weight, SPEC.warmup_epochs) == (1.0, 1.0, 20.0)
