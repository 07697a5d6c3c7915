"""A method that says what is learnt in place of labels."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from distillctl.api.method import Batch, Features, Method, Progress
from distillctl.api.options import Options
from distillctl.api.relabel import Guesses, Relabels
from distillctl.build.checks import check_relabels
from distillctl.engine.experiment import Experiment
from distillctl.engine.objective import Losses, Objective, Weighted
from distillctl.errors import PluginError, ProfileError

Make = Callable[..., Experiment]
PROGRESS = Progress(torch.tensor(1.0), torch.tensor(0.0))


class FirstHalf(Method):
    """The first images of a batch learn what the teacher says, but for the first one."""

    def relabel(self, guesses: Guesses, progress: Progress) -> Relabels:
        rows = torch.arange(len(guesses.scores))
        return Relabels(torch.where(rows > 0, guesses.scores, 0.0), rows < len(rows) // 2)


class Sees(Method):
    """Remembers the labels that it is shown."""

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        self.labels = batch.labels
        return student["logits"].mean()


def losses(made: Experiment, weighted: list[Weighted]) -> tuple[Losses, Batch, Tensor, Tensor]:
    objective = Objective(made.task, made.student, weighted, task_weight=0.5)
    batch = next(iter(made.loader.epoch(0)))
    assert made.teacher is not None
    looks = made.teacher.look(batch, objective.teacher_norms)
    return objective(batch, looks, PROGRESS), batch, objective.student(batch.images)["logits"], looks["running"]["logits"]


def test_the_label_loss_learns_what_the_method_says_and_nobody_else_sees_it(experiment: Make, no_options: Options) -> None:
    made = experiment()
    sees = Sees(no_options, None)  # type: ignore[arg-type]
    relabels = Weighted("some", FirstHalf(no_options, None), 3.0, 4.0, relabels=True)  # type: ignore[arg-type]
    found, batch, logits, teacher = losses(made, [relabels, Weighted("sees", sees, 1.0)])
    expected, count = torch.zeros(()), batch.count
    for row in range(count):
        logs = logits[row].log_softmax(0)
        if row >= count // 2:
            expected = expected - logs[batch.labels[row]]
        elif row:
            score, label = teacher[row].softmax(0).max(0)
            expected = expected - 3.0 * 0.25 * score * logs[label]
    torch.testing.assert_close(found.terms["task"], expected / count)
    torch.testing.assert_close(found.task, 0.5 * expected / count)
    assert list(found.terms) == ["task", "sees"]
    assert torch.equal(sees.labels, batch.labels)
    assert found.figures is not None
    assert int(found.figures["top1"]) == int((logits.argmax(1) == batch.labels).sum())


def test_without_such_a_method_nothing_is_asked(experiment: Make) -> None:
    made = experiment()
    batch = next(iter(made.loader.epoch(0)))
    assert made.objective.relabelled(batch, {}, PROGRESS) is batch


class Forgets(Method):
    def relabel(self, guesses: Guesses, progress: Progress) -> Any:
        return guesses.scores


class Counts(Method):
    def relabel(self, guesses: Guesses, progress: Progress) -> Relabels:
        return Relabels(guesses.scores[1:], guesses.labelled)


@pytest.mark.parametrize(("method", "words"), [(Forgets, "where `Relabels` is expected"), (Counts, "as `weights`, where a tensor")])
def test_what_a_method_may_return(experiment: Make, no_options: Options, method: type[Method], words: str) -> None:
    with pytest.raises(PluginError, match=words):
        losses(experiment(), [Weighted("odd", method(no_options, None), 1.0, relabels=True)])  # type: ignore[arg-type]


def profile(count: int = 1, task_weight: float = 1.0) -> Any:
    """As much of one as is looked at."""
    choice = SimpleNamespace(table=SimpleNamespace(weight=1.0), spec=SimpleNamespace(name="sure", relabels=True))
    return SimpleNamespace(methods=[choice] * count, task_weight=task_weight, dataset=SimpleNamespace(spec=SimpleNamespace(name="bright")))


def test_what_could_not_work_is_refused(experiment: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    task = experiment().task
    check_relabels(profile(), task)
    with pytest.raises(ProfileError, match="`sure` and `sure` all say what is learnt in place of labels"):
        check_relabels(profile(2), task)
    with pytest.raises(ProfileError, match="with `task_weight = 0` there is none"):
        check_relabels(profile(task_weight=0.0), task)
    monkeypatch.setattr(type(task), "relabels", False)
    with pytest.raises(ProfileError, match="the task of `bright` learns from none"):
        check_relabels(profile(), task)
