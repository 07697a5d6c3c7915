"""Classification keeps the contract of tasks; its figures are checked by hand in `tests/engine/test_evaluate.py`."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from distillctl.api.data import ArrayImages, Splits, View
from distillctl.api.method import Batch
from distillctl.builtin.classification_meter import ClassificationMeter
from distillctl.builtin.classification_task import Classification
from distillctl.errors import ProfileError
from distillctl.testing import TaskContract, make_task


class TestContract(TaskContract):
    task = Classification
    bounds = (0.0, 1.0)

    def splits(self, folder: Path) -> Splits:
        labels = torch.arange(40) % 4
        pixels = torch.randint(0, 256, (40, 4, 4, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        images = ArrayImages(pixels, labels)
        return Splits(images, None, images.subset(torch.arange(10)), tuple("abcd"), (0.5,) * 3, (0.25,) * 3, View(4))

    def model(self, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(48, outputs))


@pytest.mark.parametrize(
    ("outputs", "classes", "words"),
    [
        (4, "abcd", "knows 4 classes, the data set has 3"),
        (3, "acb", "knows the same classes as the data set, but in another order"),
        (3, "bcx", "class 0 of the teacher in `runs/a` is `b`, which is class 1 of the data set"),
    ],
)
def test_a_teacher_of_other_classes_is_refused(outputs: int, classes: str, words: str) -> None:
    task = make_task(Splits(make_task().data.train, None, None, tuple("abc"), (0.5,) * 3, (0.5,) * 3, View(8)))
    assert task.check_teacher(3, list("abc"), "runs/a") == ()
    (note,) = task.check_teacher(3, list("xyz"), "runs/a")  # names of a file need not be those of folders
    assert note == "the teacher in `runs/a` has other names for 3 classes: class 0 is `x`, here `a`"
    with pytest.raises(ProfileError, match=words):
        task.check_teacher(outputs, list(classes), "runs/a")


def test_figures_as_people_read_them() -> None:
    assert [Classification.show(name, 0.12345) for name in Classification.names] == ["12.35%", "12.35%", "12.35%", "0.1235"]
    assert [Classification.show(name, 0.12345) for name in Classification.teacher_names] == ["0.1235", "12.35%"]


def test_of_a_class_that_nobody_met_nothing_is_said() -> None:
    task, labels = make_task(3), torch.tensor([0, 0])
    found = []
    for meter in (task.details(), task.meter()):
        meter.add(torch.eye(3)[torch.tensor([0, 1])], Batch(torch.zeros(2, 3, 8, 8), labels, labels))
        meter.merge([meter.state()])
        found.append(task.breakdown(meter.result()))
    rest = [{"precision": 1.0, "recall": 0.5, "f1": 2 / 3}, {"precision": 0.0, "recall": 0.0, "f1": 0.0}]
    rest.append(dict.fromkeys(rest[0]))
    assert found[0] == [{**line, **more} for line, more in zip(found[1], rest, strict=True)]


def test_the_loss_of_half_precision_logits_is_full_and_theirs_is_not_rounded() -> None:
    task, batch = make_task(3), Batch(torch.zeros(1, 3, 8, 8), torch.tensor([1]), torch.tensor([0]))
    logits = [1.0, 1.0003, 1.0]  # half precision knows no number between 1 and 1.00098
    loss = task.label_loss({"output": torch.tensor([logits]), "logits": torch.tensor([logits])}, batch)[""]
    assert loss.item() == pytest.approx(math.log(sum(map(math.exp, logits))) - logits[1], abs=1e-6)


def test_what_two_processes_counted_is_in_the_order_of_the_split() -> None:
    """Each has every second batch, and the second process one less."""
    meters = [ClassificationMeter(5) for _ in range(2)]
    for number in range(5):
        label = torch.tensor([number])
        meters[number % 2].add(torch.eye(5)[label], Batch(torch.zeros(1, 3, 8, 8), label, label))
    meters[0].merge([meter.state() for meter in meters])
    assert meters[0].result().answers.predictions.tolist() == [0, 1, 2, 3, 4]


def test_of_few_images_what_errs_nowhere_does_not_guess():
    for count, floor in ((4, 0.875), (400, 0.575)):
        images = ArrayImages(torch.zeros(count, 4, 4, 3, dtype=torch.uint8), torch.arange(count) % 2)
        splits = Splits(images, None, images, ("a", "b"), (0.5,) * 3, (0.5,) * 3, View(4), "made up")
        assert Classification(splits).floor(images) == pytest.approx(floor)
