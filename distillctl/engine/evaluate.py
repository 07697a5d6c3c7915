"""Figures of a model on one split. Always in float32 (on a GPU without TF32), so that they are what the deployed weights give anywhere."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from distillctl.api.method import Batch
from distillctl.api.task import Evaluation, Task
from distillctl.distributed.process_group import ALONE, ProcessGroup
from distillctl.engine.precision import ieee
from distillctl.models.features import evaluating


@torch.no_grad()
def evaluate(task: Task, model: nn.Module, batches: Iterable[Batch], processes: ProcessGroup = ALONE) -> Evaluation:
    """Runs `model` in evaluation mode over all batches; the modes of its modules are put back afterwards.

    Of several processes each runs over its own batches (every N-th) with equal weights, and all get the same evaluation, which is
    that of one process alone.

    Raises:
        RunError: there is no image, or an answer is not finite.
    """
    meter = task.meter()
    with evaluating(model), ieee():
        for batch in batches:
            meter.add(task.predict(model, batch), batch)
    meter.merge(processes.all_gather(meter.state(), patient=True))
    return meter.result()
