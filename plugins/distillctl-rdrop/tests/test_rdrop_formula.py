"""`rdrop` against its definition in plain Python loops, and what must hold of it."""

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn

from distillctl import RunError, Wants, kd_loss
from distillctl.testing import make_batch, make_progress, make_setup, options_of
from distillctl_rdrop.losses import rdrop_loss
from distillctl_rdrop.method import RDrop
from distillctl_rdrop.plugin import SPEC

SETUP = make_setup({}, None, num_classes=6)


def draw(*shape, seed):
    return 3 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rdrop(logits, **options):
    method = RDrop(options_of(SPEC, **options), SETUP)
    (term,) = method.terms(make_batch(SETUP, logits.shape[-2]), {"logits": logits}, {}, make_progress()).values()
    return term


def softmax(values):
    exponentials = [math.exp(v - max(values)) for v in values]
    return [e / sum(exponentials) for e in exponentials]


def divergence(p, q):
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


def by_loops(logits, reduction):
    total = 0.0
    for z_1, z_2 in zip(*logits.tolist(), strict=True):
        p, q = softmax(z_1), softmax(z_2)
        total += (divergence(p, q) + divergence(q, p)) / 2
    return total if reduction == "sum" else total / logits.shape[1]


@pytest.mark.parametrize("reduction", ["batchmean", "sum"])
@pytest.mark.parametrize("shape", [(2, 5, 6), (2, 1, 6), (2, 9, 2)])
def test_formula(shape, reduction):
    logits = draw(*shape, seed=0)
    term = rdrop(logits, reduction=reduction)
    assert term.shape == ()
    assert term.item() == pytest.approx(by_loops(logits, reduction), rel=1e-10)
    assert rdrop_loss(*logits, reduction).item() == term.item()


def test_by_hand():
    """p = (0.8, 0.2), q = (0.5, 0.5): ½ · 0.3 · (log 1.6 − log 0.4) = 0.15 · log 4."""
    logits = torch.tensor([[[math.log(4.0), 0.0]], [[0.0, 0.0]]], dtype=torch.float64)
    assert rdrop(logits).item() == pytest.approx(0.15 * math.log(4), rel=1e-12)


def test_zero_with_zero_gradient_for_equal_passes():
    first = draw(5, 6, seed=1)
    for second in (first, first + torch.arange(5.0, dtype=torch.float64)[:, None]):  # a shift of a row changes no probability
        logits = torch.stack([first, second]).requires_grad_()
        term = rdrop(logits)
        term.backward()
        assert abs(term.item()) < 1e-12
        assert logits.grad.abs().max() < 1e-12


def test_symmetric_and_never_negative():
    logits = draw(2, 7, 6, seed=2)
    assert rdrop(logits.flip(0)).item() == rdrop(logits).item() > 0
    close = torch.stack([logits[0], logits[0] + 1e-6 * logits[1]]).float()
    assert rdrop(close).item() >= 0


def test_gradient_flows_through_both_passes():
    logits = draw(2, 5, 6, seed=3).requires_grad_()
    rdrop(logits).backward()
    assert all(logits.grad[k].abs().sum(1).min() > 0 for k in (0, 1))
    assert torch.autograd.gradcheck(
        lambda a, b: rdrop_loss(a, b, "batchmean"), (draw(3, 4, seed=4).requires_grad_(), draw(3, 4, seed=5).requires_grad_())
    )


def test_the_sum_of_another_implementation():
    """Sample code of the authors: ½ · (KL + reverse KL), each by `kl_div` summed over everything."""
    first, second = draw(2, 8, 6, seed=6)
    log_p, log_q = F.log_softmax(first, 1), F.log_softmax(second, 1)
    theirs = (F.kl_div(log_p, log_q, reduction="sum", log_target=True) + F.kl_div(log_q, log_p, reduction="sum", log_target=True)) / 2
    assert rdrop_loss(first, second, "sum").item() == pytest.approx(theirs.item(), rel=1e-10)
    assert rdrop_loss(first, second, "sum").item() == pytest.approx(8 * rdrop_loss(first, second, "batchmean").item(), rel=1e-12)


@pytest.mark.parametrize("shape", [(5, 6), (1, 5, 6), (3, 5, 6)])
def test_d16_anything_but_two_passes_is_refused(shape):
    """A single tensor of logits quietly gave the plain label loss."""
    with pytest.raises(RunError, match="`rdrop` compares two passes of the student"):
        rdrop(draw(*shape, seed=7))


@pytest.fixture
def student():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 6)).double()


def one_step(student, weight, images, labels, teacher=None):
    """The weights after a step on ½ (CE₁ + CE₂) + weight · R-Drop, and with a teacher also ½ (KD₁ + KD₂)."""
    torch.manual_seed(1)
    logits = student(images.repeat(2, 1)).unflatten(0, (2, len(images)))
    loss = torch.stack([F.cross_entropy(z, labels) for z in logits]).mean() + weight * rdrop(logits)
    if teacher is not None:
        loss = loss + torch.stack([kd_loss(z, teacher, 4.0, 4.0) for z in logits]).mean()
    gradients = torch.autograd.grad(loss, list(student.parameters()))
    return [(p - 0.1 * g).detach() for p, g in zip(student.parameters(), gradients, strict=True)]


@pytest.mark.parametrize("with_kd", [False, True])
def test_d16_it_changes_the_weights_alone_and_beside_kd(student, with_kd):
    images, labels = draw(10, 8, seed=8), torch.arange(10) % 6
    teacher = draw(10, 6, seed=9) if with_kd else None
    with_it, without = (one_step(student, weight, images, labels, teacher) for weight in (SPEC.weight, 0.0))
    assert all((a - b).abs().max() > 1e-6 for a, b in zip(with_it, without, strict=True))


def test_without_dropout_it_has_no_effect(student):
    """The reason for which the engine refuses such a student."""
    student[2].p = 0.0
    images, labels = draw(10, 8, seed=8), torch.arange(10) % 6
    with_it, without = (one_step(student, weight, images, labels) for weight in (SPEC.weight, 0.0))
    for a, b in zip(with_it, without, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_large_and_far_apart_logits_are_finite():
    logits = torch.tensor([[[1e4, -1e4, 0.0]], [[-1e4, 1e4, 0.0]]], requires_grad=True)
    term = rdrop(logits)
    term.backward()
    assert term.item() == pytest.approx(2e4)  # ½ · 2 · (1 · 20000)
    assert logits.grad.isfinite().all()


def test_wants_two_passes_and_no_features():
    assert RDrop.wants(options_of(SPEC)) == Wants(passes=2)


def test_defaults():
    assert options_of(SPEC).reduction == "batchmean"
    assert (SPEC.weight, SPEC.task_weight, SPEC.kind, SPEC.needs_teacher) == (0.3, 1.0, "self", False)
    with pytest.raises(ValidationError, match=r"for \w+\nreduction\n"):
        options_of(SPEC, reduction="mean")
