"""Figures of an evaluation after training, against torchmetrics and against loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distillctl.api.method import Batch
from distillctl.api.task import Evaluation
from distillctl.builtin.classification_details import DetailedMeter, calibration_error
from distillctl.errors import RunError


def evaluated(logits: Tensor, labels: Tensor, teacher: Tensor | None = None, size: int = 7) -> Evaluation:
    meter = DetailedMeter(logits.shape[1], teacher=teacher is not None)
    for index in torch.arange(len(labels)).split(size):
        batch = Batch(torch.zeros(len(index), 1, 1, 1), labels[index], index)
        meter.add(logits[index] if teacher is None else (logits[index], teacher[index]), batch)
    meter.merge([meter.state()])
    return meter.result()


def drawn(seed: int, classes: int = 6, count: int = 200) -> tuple[Tensor, Tensor]:
    """Class 1 does not occur, class 2 is never guessed, class 3 neither, class 4 is guessed and does not occur."""
    draw = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, classes, generator=draw)
    logits[:, 2:4] -= 100
    labels = torch.randint(0, classes, (count,), generator=draw)
    return logits, torch.where((labels == 1) | (labels == 3) | (labels == 4), 0, labels)


def test_a_matrix_of_very_many_classes_is_not_made() -> None:
    for classes, there in ((2000, True), (2001, False)):
        details = evaluated(torch.randn(3, classes), torch.tensor([0, 1, 5])).answers
        assert (details.confusion is not None) is there


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_the_figures_are_those_of_torchmetrics(seed: int) -> None:
    import torchmetrics.functional.classification as oracle

    logits, labels = drawn(seed)
    found = evaluated(logits, labels)
    metrics = (
        ("precision", oracle.multiclass_precision),
        ("recall", oracle.multiclass_recall),
        ("f1", oracle.multiclass_f1_score),
    )
    for name, metric in metrics:
        assert found.figures[f"macro_{name}"] == pytest.approx(float(metric(logits, labels, 6, average="macro")), abs=1e-6)
        torch.testing.assert_close(getattr(found.answers, name).float(), metric(logits, labels, 6, average=None))
    assert torch.equal(found.answers.confusion, oracle.multiclass_confusion_matrix(logits, labels, 6))
    error = float(oracle.multiclass_calibration_error(logits.softmax(1), labels, 6, n_bins=15, norm="l1"))
    assert found.figures["ece"] == pytest.approx(error, abs=1e-6)


def test_means_are_over_the_classes_that_occur_or_were_guessed() -> None:
    """Of five classes: a, right once of two; b, which occurs and is never guessed; c, guessed alone; d, neither; e, always right."""
    labels, guesses = torch.tensor([0, 0, 1, 4, 4]), torch.tensor([0, 2, 0, 4, 4])
    found = evaluated(torch.eye(5)[guesses] * 3, labels)
    answers = found.answers
    assert answers.precision.tolist() == [0.5, 0, 0, 0, 1]
    assert answers.recall.tolist() == [0.5, 0, 0, 0, 1]
    assert answers.there.tolist() == [True, True, True, False, True]
    for name in ("macro_precision", "macro_recall", "macro_f1"):
        assert found.figures[name] == pytest.approx(1.5 / 4)
    assert found.figures["mpa"] == pytest.approx(1.5 / 3)
    assert answers.confusion.nonzero().tolist() == [[0, 0], [0, 2], [1, 0], [4, 4]]
    assert answers.confusion[4, 4] == 2


def test_calibration_by_loops() -> None:
    logits, labels = drawn(9)
    probabilities = logits.double().softmax(1)
    error = 0.0
    for number in range(15):
        inside = [i for i in range(len(labels)) if number / 15 < float(probabilities[i].max()) <= (number + 1) / 15]
        if inside:
            confidence = sum(float(probabilities[i].max()) for i in inside) / len(inside)
            accuracy = sum(int(probabilities[i].argmax()) == int(labels[i]) for i in inside) / len(inside)
            error += len(inside) / len(labels) * abs(accuracy - confidence)
    assert evaluated(logits, labels).figures["ece"] == pytest.approx(error, abs=1e-12)


def test_bins_have_their_upper_end() -> None:
    """Confidences of exactly 1, 0.2 and a little more: with 0.2 in the bin above, both wrong ones would be of one bin."""
    confidence = torch.tensor([1.0, 0.2, 0.25], dtype=torch.float64)
    assert calibration_error(confidence, torch.tensor([True, True, False])) == pytest.approx((0 + 0.8 + 0.25) / 3)


def test_figures_beside_a_teacher() -> None:
    mine, labels = drawn(1)
    theirs, _ = drawn(2)
    found = evaluated(mine, labels, theirs)
    kl = 0.0
    for p, q in zip(theirs.double().softmax(1).tolist(), mine.double().softmax(1).tolist(), strict=True):
        kl += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)
    assert found.figures["teacher_kl"] == pytest.approx(kl / len(labels), rel=1e-9)
    same = sum(int(a.argmax()) == int(b.argmax()) for a, b in zip(mine, theirs, strict=True))
    assert found.figures["teacher_agreement"] == same / len(labels)
    assert {**found.figures, **evaluated(mine, labels).figures} == found.figures


def test_a_teacher_that_is_not_finite_is_told_from_the_model() -> None:
    logits, labels = drawn(1)
    broken = logits.clone()
    broken[3, 2] = math.nan
    with pytest.raises(RunError, match="the logits of the teacher are not finite"):
        evaluated(logits, labels, broken)
    with pytest.raises(RunError, match="the logits of an evaluation are not finite"):
        evaluated(broken, labels, logits)
