from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillctl.api.method import Batch, Features, Method, Progress
from distillctl.api.options import Options
from distillctl.api.specs import Unit
from distillctl.api.task import Outputs, Seen
from distillctl.builtin.classification_task import Classification
from distillctl.engine.experiment import Experiment
from distillctl.engine.objective import Objective, Weighted

Make = Callable[..., Experiment]


class Two(Method):
    """Two terms and a parameter."""

    def __init__(self, options: object, setup: object) -> None:
        super().__init__(options, setup)  # type: ignore[arg-type]
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> dict[str, Tensor]:
        return {"a": self.scale * student["logits"].square().mean(), "b": (student["logits"] - teacher["logits"]).abs().mean()}


class Explosive(Method):
    """Must not be evaluated."""

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        raise AssertionError("a term of weight 0 was evaluated")


def run(experiment: Experiment, objective: Objective, epoch: float) -> tuple[Tensor, dict[str, Tensor], Tensor, Batch, Features]:
    batch = next(iter(experiment.loader.epoch(0)))
    assert experiment.teacher is not None
    looks = experiment.teacher.look(batch, ["running"])
    losses = objective(batch, looks, Progress(torch.tensor(epoch), torch.tensor(0.0)))
    return losses.task + losses.distillation, losses.terms, objective.student(batch.images)["logits"], batch, looks["running"]


@pytest.mark.parametrize(("epoch", "factor"), [(1, 0.25), (3, 0.75), (4, 1.0), (9, 1.0)])
def test_sum_of_weighted_terms_with_warmup(experiment: Make, no_options: Options, epoch: float, factor: float) -> None:
    made = experiment(label_smoothing=0.1)
    method = Two(no_options, None)
    objective = Objective(made.task, made.student, [Weighted("two", method, 3.0, 4.0)], task_weight=0.5)
    total, terms, logits, batch, teacher = run(made, objective, epoch)
    task = F.cross_entropy(logits, batch.labels, label_smoothing=0.1)
    a, b = 2.0 * logits.square().mean(), (logits - teacher["logits"]).abs().mean()
    torch.testing.assert_close(total, 0.5 * task + 3.0 * factor * (a + b))
    assert list(terms) == ["task", "two.a", "two.b"]


def test_weight_zero_is_not_evaluated(experiment: Make, no_options: Options) -> None:
    """D-40: a term of weight 0 may be NaN without harm."""
    made = experiment()
    objective = Objective(made.task, made.student, [Weighted("never", Explosive(no_options, None), 0.0)], task_weight=1.0)  # type: ignore[arg-type]
    _, terms, *_ = run(made, objective, 1)
    assert list(terms) == ["task"]


class Halves(Classification):
    """Its rows are pieces of images: the teacher says another thing to each of them."""

    cuts_rows = True
    asked = 0

    def answer(self, teacher: nn.Module | None, look: Outputs, outputs: Outputs) -> Outputs:
        self.asked += 1
        assert not torch.is_grad_enabled()
        return {"logits": look["logits"] + 1, "of": outputs["logits"]}

    def seen(self, outputs: Outputs, batch: Batch) -> Mapping[str, Seen]:
        row = Seen(replace(batch, labels=batch.labels[:3]), {"logits": outputs["logits"][:3]})
        return {"images": Seen(batch, {"map": outputs["logits"]}), "rows": row}


class Sees(Method):
    """Keeps what it is given."""

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        self.given = (batch, student, teacher)
        return next(iter(student.values())).mean()


@pytest.mark.parametrize(("units", "asked"), [(("rows", "images", "rows"), 1), (("images",), 0)])
def test_each_method_is_given_its_unit_and_the_teacher_answers_once_if_rows_are_asked_for(
    experiment: Make, no_options: Options, units: tuple[Unit, ...], asked: int
) -> None:
    made = experiment()
    task, methods = Halves(made.splits), [Sees(no_options, None) for _ in units]  # type: ignore[arg-type]
    weighted = [Weighted(str(number), method, 1.0, unit=unit) for number, (method, unit) in enumerate(zip(methods, units, strict=True))]
    objective = Objective(task, made.student, weighted, task_weight=1.0, teacher=made.network)
    *_, logits, batch, look = run(made, objective, 1)
    assert task.asked == asked
    for method, unit in zip(methods, units, strict=True):
        here, student, teacher = method.given
        if unit == "rows":
            assert here.rows == 3
            torch.testing.assert_close(student, {"logits": logits[:3]})
            torch.testing.assert_close(teacher, {"logits": look["logits"][:3] + 1})
        else:
            assert here.rows == batch.count
            torch.testing.assert_close(student, {"map": logits})
            torch.testing.assert_close(teacher["map"] - asked, look["logits"])


def test_trained_are_student_and_methods_once(experiment: Make, no_options: Options) -> None:
    made = experiment()
    method = Two(no_options, None)
    objective = Objective(made.task, made.student, [Weighted("two", method, 1.0)], task_weight=1.0)
    grouped = [id(p) for g in objective.parameter_groups() for p in g["params"]]
    assert sorted(grouped) == sorted(id(p) for p in (*made.model.parameters(), *method.parameters()))
    assert len(set(grouped)) == len(grouped)
