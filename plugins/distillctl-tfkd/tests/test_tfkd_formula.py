"""`tfkd` and `tfkd-self` against their definitions in plain Python loops, and what must hold of them."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from distillctl import Batch, RunError, Wants, kd_loss
from distillctl.testing import make_progress, make_setup, options_of
from distillctl_tfkd.losses import tfkd_loss, virtual_teacher
from distillctl_tfkd.method import TfKD, TfKDSelf
from distillctl_tfkd.plugin import TFKD, TFKD_SELF

B = 5


def draw(classes, seed=0, size=B):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(size, classes, dtype=torch.float64, generator=generator), torch.randint(classes, (size,), generator=generator)


def batch_of(labels):
    return Batch(torch.zeros(len(labels), 3, 4, 4), labels, torch.arange(len(labels)))


def tfkd(logits, labels, **options):
    method = TfKD(options_of(TFKD, **options), make_setup({}, None, num_classes=logits.shape[1]))
    (term,) = method.terms(batch_of(labels), {"logits": logits}, {}, make_progress()).values()
    return term


def softmax(values):
    exponentials = [math.exp(v - max(values)) for v in values]
    return [e / sum(exponentials) for e in exponentials]


def divergence(p, q):
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


def virtual(label, classes, correct, temperature, logs):
    values = [correct if k == label else (1 - correct) / (classes - 1) for k in range(classes)]
    return softmax([(math.log(v) if logs else v) / temperature for v in values])


def by_loops(logits, labels, correct, temperature, logs, student_temperature):
    total = 0.0
    for z, y in zip(logits.tolist(), labels.tolist(), strict=True):
        total += divergence(virtual(y, len(z), correct, temperature, logs), softmax([v / student_temperature for v in z]))
    return student_temperature**2 * total / len(labels)


@pytest.mark.parametrize("logs", [False, True])
@pytest.mark.parametrize(
    ("classes", "correct", "temperature", "student_temperature"),
    [(100, 0.99, 20.0, 1.0), (7, 0.9, 20.0, 20.0), (2, 0.6, 1.0, 1.0), (5, 0.99, 0.01, 2.5)],
)
def test_tfkd(classes, correct, temperature, student_temperature, logs):
    logits, labels = draw(classes)
    options = {"correct_probability": correct, "temperature": temperature, "student_temperature": student_temperature}
    if logs and temperature < 1:
        options["temperature"] = temperature = 0.5  # the loops take logarithms of probabilities that are still positive
    term = tfkd(logits, labels, soften="log_probabilities" if logs else "probabilities", **options)
    assert term.shape == ()
    assert term.item() == pytest.approx(by_loops(logits, labels, correct, temperature, logs, student_temperature), rel=1e-9)


def test_defaults_are_the_authors_code_on_100_classes():
    """0.1 · 100 · (mean over B · C of the divergence), 0.9 · CE; softmax of the probabilities over τ = 20, student at T = 1."""
    logits, labels = draw(100)
    table = torch.full((B, 100), 0.01 / 99, dtype=torch.float64).scatter(1, labels[:, None], 0.99)
    theirs = 0.1 * 100 * F.kl_div(F.log_softmax(logits, 1), F.softmax(table / 20, 1), reduction="none").mean()
    assert TFKD.weight * tfkd(logits, labels).item() == pytest.approx(theirs.item(), rel=1e-10)
    assert (TFKD.weight, TFKD.task_weight) == (0.1, 0.9)


def test_the_virtual_teacher_by_hand():
    """a = 0.75 of 3 classes at τ = 0.5: softmax of (1.5, 0.25, 0.25), or of twice the logarithms: 0.5625 : 0.015625 : 0.015625."""
    labels = torch.tensor([1, 0])
    teacher = virtual_teacher(labels, 3, 0.75, 0.5, logs=False).exp()
    whole = math.exp(1.5) + 2 * math.exp(0.25)
    expected = torch.tensor([[0.25, 1.5, 0.25], [1.5, 0.25, 0.25]], dtype=torch.float64).exp() / whole
    torch.testing.assert_close(teacher, expected)
    teacher = virtual_teacher(labels, 3, 0.75, 0.5, logs=True).exp()
    torch.testing.assert_close(teacher, torch.tensor([[1, 36, 1], [36, 1, 1]], dtype=torch.float64) / 38)


@pytest.mark.parametrize("logs", [False, True])
@pytest.mark.parametrize("temperature", [1e-3, 1.0, 20.0, 1e6])
def test_the_virtual_teacher_is_right_and_indifferent(temperature, logs):
    labels = torch.tensor([3, 0, 9])
    teacher = virtual_teacher(labels, 10, 0.99, temperature, logs=logs).exp()
    assert teacher.isfinite().all()
    torch.testing.assert_close(teacher.sum(1), torch.ones(3, dtype=torch.float64))
    assert teacher.argmax(1).equal(labels)
    assert all(len(set(row.tolist())) == 2 for row in teacher)


def test_at_temperature_1_it_is_label_smoothing():
    """Of strength ε: a = 1 − ε + ε/C. Equal gradients; the values differ by the teacher's entropy."""
    logits, labels = draw(8, size=6)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    tfkd(ours, labels, correct_probability=1 - 0.3 + 0.3 / 8, temperature=1.0, soften="log_probabilities").backward()
    F.cross_entropy(theirs, labels, label_smoothing=0.3).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_zero_with_zero_gradient_where_the_student_is_the_virtual_teacher():
    _, labels = draw(7)
    target = virtual_teacher(labels, 7, 0.99, 20.0, logs=False)
    logits = (target + torch.arange(B, dtype=torch.float64)[:, None]).requires_grad_()  # a shift of a row changes no probability
    loss = tfkd_loss(logits, target, 1.0)
    loss.backward()
    assert abs(loss.item()) < 1e-12
    assert logits.grad.abs().max() < 1e-12
    assert tfkd(draw(7)[0], labels).item() > 0


@pytest.mark.parametrize(("classes", "correct"), [(4, 0.25), (4, 0.1), (1, 0.99)])
def test_a_teacher_that_is_not_right_is_refused(classes, correct):
    with pytest.raises(RunError, match=f"`correct_probability` is {correct:g} with {classes} classes") as error:
        TfKD(options_of(TFKD, correct_probability=correct), make_setup({}, None, num_classes=classes))
    assert error.value.problems[0].hint


@pytest.mark.parametrize("temperature", [1.0, 6.0, 20.0])
def test_tfkd_self(temperature):
    (student, labels), (teacher, _) = draw(6), draw(6, seed=1)
    setup = make_setup({}, {}, num_classes=6)
    setup = replace(setup, teacher=replace(setup.teacher, name=setup.student.name))
    method = TfKDSelf(options_of(TFKD_SELF, temperature=temperature), setup)
    term = method.terms(batch_of(labels), {"logits": student}, {"logits": teacher}, make_progress())[""]
    expected = 0.0
    for z_s, z_t in zip(student.tolist(), teacher.tolist(), strict=True):
        expected += divergence(softmax([v / temperature for v in z_t]), softmax([v / temperature for v in z_s]))
    assert term.item() == pytest.approx(temperature**2 * expected / B, rel=1e-10)
    steered = method.terms(batch_of(labels), {"logits": student}, {"logits": teacher}, make_progress(), temperature=torch.tensor(3.0))[""]
    assert steered.item() == pytest.approx(kd_loss(student, teacher, 3.0, 3.0).item(), rel=1e-6)


def test_self_training_by_another_model_is_refused():
    with pytest.raises(RunError, match="the teacher is `tiny_teacher` and the student `tiny_student`") as error:
        TfKDSelf(options_of(TFKD_SELF), make_setup({}, {}))
    assert "`kd`" in error.value.problems[0].hint


def test_neither_reads_features():
    assert TfKD.wants(options_of(TFKD)) == TfKDSelf.wants(options_of(TFKD_SELF)) == Wants()


def test_declarations():
    assert (TFKD.kind, TFKD.needs_teacher) == ("self", False)
    assert TFKD_SELF.needs_teacher
    options = options_of(TFKD)
    assert (options.correct_probability, options.temperature, options.student_temperature) == (0.99, 20.0, 1.0)
    assert options.soften == "probabilities"
    assert (TFKD_SELF.weight, TFKD_SELF.task_weight, options_of(TFKD_SELF).temperature) == (0.475, 0.05, 6.0)
    assert TFKD_SELF.weight == 0.95 * 50 / 100  # α, the factor of the authors' code, and the classes that its mean divides by


@pytest.mark.parametrize("values", [{"correct_probability": 1.0}, {"correct_probability": 0.0}, {"temperature": 0.0}, {"soften": "logits"}])
def test_options_out_of_bounds(values):
    with pytest.raises(ValidationError, match=rf"for \w+\n{[*values][-1]}\b"):
        options_of(TFKD, **values)
