"""Figures of a model on one split. Always in float32 (on a GPU without TF32), so that they are what the deployed weights give anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillctl.api.method import Batch
from distillctl.api.specs import ModelSpec
from distillctl.api.task import Evaluation, Meter, Task
from distillctl.distributed.process_group import ALONE, ProcessGroup
from distillctl.engine.precision import ieee
from distillctl.models.features import Tapped, evaluating


@dataclass(frozen=True)
class Comparison:
    """What an evaluation beside a teacher needs: those of a task that compares, and others where the meter takes pairs.

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
    task: Task,
    model: nn.Module,
    batches: Iterable[Batch],
    processes: ProcessGroup = ALONE,
    comparison: Comparison | None = None,
    *,
    meter: Meter | None = None,
    sizes: Sequence[int] = (),
) -> Evaluation:
    """Runs `model` in evaluation mode over all batches; the modes of its modules are put back afterwards.

    Of several processes each runs over its own batches (every N-th) with equal weights, and all get the same evaluation, which is
    that of one process alone.

    meter: a new one, `task.meter()` unless another is given. comparison: then it is handed pairs.
    sizes: side lengths in pixels to which every image is resized, bilinearly with antialiasing; the answers are averaged. Empty: as it is.

    Raises:
        RunError: there is no image, or an answer is not finite.
    """
    meter = task.meter() if meter is None else meter
    with evaluating(model), ieee():
        if comparison is not None:
            _compare(task, meter, model, batches, comparison, sizes)
        else:
            for batch in batches:
                meter.add(_answer(task, model, batch, sizes), batch)
    meter.merge(processes.all_gather(meter.state(), patient=True))
    return meter.result()


def _answer(task: Task, model: nn.Module, batch: Batch, sizes: Sequence[int]) -> Any:
    if not sizes:
        return task.predict(model, batch)
    return task.average([task.predict(model, replace(batch, images=resized(batch.images, size))) for size in sizes])


def resized(images: Tensor, size: int) -> Tensor:
    """(B, C, H, W) → (B, C, size, size); images of that size stay as they are."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def _compare(task: Task, meter: Meter, model: nn.Module, batches: Iterable[Batch], comparison: Comparison, sizes: Sequence[int]) -> None:
    teacher = comparison.teacher
    with (
        evaluating(teacher),
        _with_features(task, model, comparison.spec) as mine,
        _with_features(task, teacher, comparison.teacher_spec) as theirs,
    ):
        for batch in batches:
            answer = _answer(task, mine, batch, sizes)
            meter.add((answer, answer if teacher is model else _answer(task, theirs, batch, sizes)), batch)
        for batch in comparison.labelled:
            meter.add((task.predict(mine, batch), None), batch)


@contextmanager
def _with_features(task: Task, model: nn.Module, spec: ModelSpec) -> Iterator[nn.Module]:
    """The model as `task.predict` reads it; without `pooled` where the model declares no classifier."""
    if not task.compares:
        yield model
        return
    with closing(Tapped(model, spec, [name for name in task.reads if name != "pooled" or spec.classifier])) as tapped:
        yield tapped
