from __future__ import annotations

import pytest
import torch
from torch import tensor

from distillctl.engine.meter import TrainingMeter
from distillctl.errors import RunError

CPU = torch.device("cpu")


def filled() -> TrainingMeter:
    meter = TrainingMeter(CPU)
    meter.add(3, tensor(4.0), {"task": tensor(1.0), "kd": tensor(3.0)}, {"top1": tensor(2), "top5": tensor(3)})
    meter.add(1, tensor(8.0), {"task": tensor(2.0), "kd": tensor(6.0)}, {"top1": tensor(1), "top5": tensor(1)})
    return meter


def test_means_are_over_images_not_over_batches() -> None:
    reading = filled().read()
    assert reading.images == 4
    assert reading.terms == {"task": 1.25, "kd": 3.75}
    assert reading.total == 5.0
    assert reading.figures == {"top1": 0.75, "top5": 1.0}


def test_a_student_that_is_not_trained_for_its_task_has_no_figures() -> None:
    meter = TrainingMeter(CPU)
    meter.add(2, tensor(4.0), {"ft.paraphraser": tensor(4.0)}, None)
    assert meter.read().figures == {}
    assert meter.read().terms == {"ft.paraphraser": 4.0}


def test_what_was_counted_elsewhere_is_added() -> None:
    meter = TrainingMeter(CPU)
    for _ in range(2):
        meter.absorb(filled().state_dict())
    assert meter.read() == filled().read().__class__(8, {"task": 1.25, "kd": 3.75}, 5.0, {"top1": 0.75, "top5": 1.0})


def test_terms_must_not_change_within_an_epoch() -> None:
    meter = TrainingMeter(CPU)
    meter.add(1, tensor(1.0), {"task": tensor(1.0)}, None)
    with pytest.raises(RunError, match="task, total became other, total"):
        meter.add(1, tensor(1.0), {"other": tensor(1.0)}, None)
