"""Several forward passes of the student over a batch, and a teacher whose normalisation uses the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distillctl.api.method import Batch, Features, Method, Progress, Wants
from distillctl.engine.experiment import Experiment
from distillctl.engine.objective import Objective, Weighted, _repeated
from distillctl.engine.step import Step
from distillctl.models.features import batch_statistics

Make = Callable[..., Experiment]
PROGRESS = Progress(torch.tensor(1.0), torch.tensor(0.0))


class Both(Method):
    """Compares two passes."""

    @classmethod
    def wants(cls, options: Any) -> Wants:
        return Wants(student=("last",))

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        assert student["logits"].shape == (2, len(batch.labels), 4)
        assert student["last"].shape[:2] == (2, len(batch.labels))
        assert teacher["logits"].shape == (len(batch.labels), 4)
        return (student["logits"][0] - student["logits"][1]).square().mean()


class One(Method):
    """Wants one pass."""

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        assert student["logits"].shape == teacher["logits"].shape
        return (student["logits"] - teacher["logits"]).square().mean()


class Mean(Method):
    """The teacher's mean logit."""

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        return teacher["logits"].square().mean() + 0 * student["logits"].sum()


def test_other_methods_and_labels_see_every_pass(experiment: Make) -> None:
    made = experiment(methods=[("both", Both, None, 1.0)])
    made.model.fc = torch.nn.Sequential(torch.nn.Dropout(0.5), made.model.fc)  # type: ignore[assignment, arg-type]
    methods = [Weighted("both", Both(None, None), 1.0, passes=2), Weighted("one", One(None, None), 1.0)]  # type: ignore[arg-type]
    objective = Objective(made.task, made.student, methods, task_weight=1.0)
    batch = next(iter(made.loader.epoch(0)))
    assert made.network is not None
    teacher = made.network(batch.images)
    student = objective.observe(batch)
    losses = objective.losses(batch, student, {"running": teacher}, PROGRESS)
    first, second = student["logits"]
    assert not torch.equal(first, second)
    torch.testing.assert_close(losses.terms["both"], (first - second).square().mean())
    expected = ((first - teacher["logits"]).square().mean() + (second - teacher["logits"]).square().mean()) / 2
    torch.testing.assert_close(losses.terms["one"], expected)
    torch.testing.assert_close(losses.terms["task"], (F.cross_entropy(first, batch.labels) + F.cross_entropy(second, batch.labels)) / 2)
    assert losses.figures is not None
    assert losses.figures["top1"] == (first.argmax(1) == batch.labels).sum()


def test_soft_labels_are_repeated_with_the_passes() -> None:
    soft = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    batch = Batch(torch.zeros(2, 3, 4, 4), torch.tensor([1, 0]), torch.arange(2), soft=soft)
    twice = _repeated(batch, 2, images=False)
    assert torch.equal(twice.soft, torch.cat([soft, soft]))
    assert twice.labels.tolist() == [1, 0, 1, 0]


def test_teacher_runs_once_for_each_kind_of_normalisation(experiment: Make) -> None:
    made = experiment()
    assert made.teacher is not None
    running = [Weighted("a", Mean(None, None), 1.0), Weighted("c", Mean(None, None), 1.0)]  # type: ignore[arg-type]
    batch_ = Weighted("b", Mean(None, None), 1.0, teacher_norm="batch")  # type: ignore[arg-type]
    before = {k: v.clone() for k, v in made.network.model.state_dict().items()}
    for methods, forwards in ((running, 1), ([batch_], 1), ([*running, batch_], 2)):
        made.objectives = (Objective(made.task, made.student, methods, task_weight=1.0),)
        step, calls = Step(made), []
        handle = made.network.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        step(next(iter(made.loader.epoch(0))), 0)
        handle.remove()
        assert len(calls) == forwards
        terms = step.learner.meter.read().terms
        if len(methods) == 3:
            assert terms["a"] == terms["c"] != terms["b"]
    assert all(torch.equal(v, before[k]) for k, v in made.network.model.state_dict().items()), "no buffer of the teacher changes"


def test_batch_statistics_are_those_of_training_mode(experiment: Make) -> None:
    """D-15: what a teacher in training mode gives, without what it does to its buffers."""
    made = experiment()
    assert made.teacher is not None
    model: Any = made.network.model
    images = torch.randn(6, 3, 8, 8)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with batch_statistics(model):
        got = model(images)
    plain = model(images)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not torch.allclose(got, plain)
    torch.testing.assert_close(model.train()(images), got)
    assert not all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
