"""Figures of a model on one split. Always in float32 (on a GPU without TF32), so that they are what the deployed weights give anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from distillctl.api.method import Batch
from distillctl.api.specs import ModelSpec
from distillctl.api.task import Evaluation, Meter, Task
from distillctl.distributed.process_group import ALONE, ProcessGroup
from distillctl.engine.precision import ieee
from distillctl.models.features import Tapped, evaluating


@dataclass(frozen=True)
class Comparison:
    """What the evaluations of a task that compares need beside the model.

    spec: declaration of the model.
    teacher, teacher_spec: the network with which it is compared; that may be the model itself.
    labelled: batches of `Splits.labelled`.
    """

    spec: ModelSpec
    teacher: nn.Module
    teacher_spec: ModelSpec
    labelled: Iterable[Batch] = ()


@torch.no_grad()
def evaluate(
    task: Task, model: nn.Module, batches: Iterable[Batch], processes: ProcessGroup = ALONE, comparison: Comparison | None = None
) -> Evaluation:
    """Runs `model` in evaluation mode over all batches; the modes of its modules are put back afterwards.

    Of several processes each runs over its own batches (every N-th) with equal weights, and all get the same evaluation, which is
    that of one process alone.

    Raises:
        RunError: there is no image, or an answer is not finite.
    """
    meter = task.meter()
    with evaluating(model), ieee():
        if comparison is not None:
            _compare(task, meter, model, batches, comparison)
        else:
            for batch in batches:
                meter.add(task.predict(model, batch), batch)
    meter.merge(processes.all_gather(meter.state(), patient=True))
    return meter.result()


def _compare(task: Task, meter: Meter, model: nn.Module, batches: Iterable[Batch], comparison: Comparison) -> None:
    teacher = comparison.teacher
    with (
        evaluating(teacher),
        _with_features(task, model, comparison.spec) as mine,
        _with_features(task, teacher, comparison.teacher_spec) as theirs,
    ):
        for batch in batches:
            answer = task.predict(mine, batch)
            meter.add((answer, answer if teacher is model else task.predict(theirs, batch)), batch)
        for batch in comparison.labelled:
            meter.add((task.predict(mine, batch), None), batch)


@contextmanager
def _with_features(task: Task, model: nn.Module, spec: ModelSpec) -> Iterator[Tapped]:
    """The model as `task.predict` reads it; without `pooled` where the model declares no classifier."""
    with closing(Tapped(model, spec, [name for name in task.reads if name != "pooled" or spec.classifier])) as tapped:
        yield tapped
