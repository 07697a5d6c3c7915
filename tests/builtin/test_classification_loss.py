"""The label loss as plain loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from distillctl.api.data import NO_LABEL, ArrayImages, Splits, View
from distillctl.api.method import Batch
from distillctl.api.task import LossOptions
from distillctl.builtin.classification_loss import LabelLoss
from distillctl.builtin.classification_task import Classification
from distillctl.errors import ProfileError

LOGITS = [[2.0, -1.0, 0.5, 0.0], [0.1, 0.2, -3.0, 1.0], [-0.5, 4.0, 0.0, 0.3]]
LABELS = [0, 2, 1]
SOFT = [[0.7, 0.3, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5], [0.0, 1.0, 0.0, 0.0]]


def make_splits():
    images = ArrayImages(torch.zeros(6, 4, 4, 3, dtype=torch.uint8), torch.tensor([0, 1, 1, 2, 2, 2]))
    return Splits(images, None, None, ("a", "b", "c"), (0.5,) * 3, (0.5,) * 3, View(4), "made up")


def by_hand(smoothing=0.0, focal=None, poly=None, weights=None, soft=None):
    total = 0.0
    for row, logits in enumerate(LOGITS):
        exponentials = [math.exp(z) for z in logits]
        p = [e / sum(exponentials) for e in exponentials]
        for c in range(4):
            share = (soft[row][c] if soft else float(c == LABELS[row])) * (1 - smoothing) + smoothing / 4
            share *= weights[c] if weights else 1.0
            term = -math.log(p[c])
            if focal is not None:
                term *= (1 - p[c]) ** focal
            if poly is not None:
                term += poly * (1 - p[c])
            total += share * term
    return total / len(LOGITS)


@pytest.mark.parametrize("soft", [None, SOFT])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5, 3.0]])
@pytest.mark.parametrize("shape", [{}, {"focal": 2.0}, {"poly": 1.5}])
def test_formula(shape, weights, smoothing, soft):
    made = LabelLoss(smoothing, **shape, weights=None if weights is None else torch.tensor(weights))
    shares = None if soft is None else torch.tensor(soft, dtype=torch.float64)
    found = made(torch.tensor(LOGITS, dtype=torch.float64), torch.tensor(LABELS), shares)
    assert found.item() == pytest.approx(by_hand(smoothing, weights=weights, soft=soft, **shape), rel=1e-9)


def test_gradients_are_finite_where_an_answer_is_sure():
    logits = torch.tensor([[300.0, -300.0, 0.0]], requires_grad=True)
    LabelLoss(focal=0.5)(logits, torch.tensor([0])).backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_balanced_weights_have_the_mean_1_over_the_training_images():
    splits = make_splits()
    counts = torch.bincount(splits.train.labels, minlength=3)
    task = Classification(splits, loss=LossOptions(class_weights="balanced"))
    weights = task._class_weights("balanced")
    torch.testing.assert_close(weights * counts, torch.full((3,), len(splits.train) / 3))
    torch.testing.assert_close(weights[splits.train.labels].mean(), torch.tensor(1.0))


def test_as_many_weights_as_classes():
    with pytest.raises(ProfileError, match=r"`train.class_weights` has 2 weights for 3 classes"):
        Classification(make_splits(), loss=LossOptions(class_weights=[1.0, 2.0]))


def test_without_any_of_it_it_is_cross_entropy_to_the_bit():
    logits, labels = torch.tensor(LOGITS), torch.tensor(LABELS)
    assert torch.equal(LabelLoss(0.1)(logits, labels), F.cross_entropy(logits, labels, label_smoothing=0.1))


@pytest.mark.parametrize("options", [{}, {"smoothing": 0.1}, {"focal": 2.0}, {"weights": torch.tensor([1.0, 2.0, 0.5, 3.0])}], ids=str)
def test_images_without_a_label_count_for_nothing_and_parts_add_up(options):
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([1, NO_LABEL, NO_LABEL, 3, NO_LABEL, 0, 2, NO_LABEL])
    has = labels != NO_LABEL
    some = LabelLoss(**options, labelled=0.5)
    loss = some(logits, labels)
    torch.testing.assert_close(loss, LabelLoss(**options)(logits[has], labels[has]), check_dtype=False)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient[~has].any()
    assert gradient[has].any(1).all()
    parts = sum(some(logits[part], labels[part]) * len(part) / 8 for part in torch.arange(8).split([3, 1, 4]))
    torch.testing.assert_close(parts, loss)
    assert not some(logits[1:3], labels[1:3])


def test_the_task_counts_what_has_a_label():
    images = ArrayImages(torch.zeros(8, 4, 4, 3, dtype=torch.uint8), torch.tensor([0, 1, 1, 2] + [NO_LABEL] * 4))
    splits = Splits(images, None, None, ("a", "b", "c"), (0.5,) * 3, (0.5,) * 3, View(4), "made up", unlabelled_share=0.5)
    task = Classification(splits, loss=LossOptions(class_weights="balanced"))
    assert task._class_weights("balanced").tolist() == pytest.approx([4 / 3, 4 / 6, 4 / 3])
    batch = Batch(torch.zeros(4, 3, 4, 4), torch.tensor([0, NO_LABEL, 1, NO_LABEL]), torch.arange(4))
    logits = torch.eye(4, 3)
    assert task.figures({"logits": logits}, batch)["top1"] == 2  # one of two, as a sum over four images
    torch.testing.assert_close(
        Classification(splits).label_loss({"logits": logits}, batch)[""], F.cross_entropy(logits[[0, 2]], batch.labels[[0, 2]])
    )
