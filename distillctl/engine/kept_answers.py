"""A meter that keeps the answer to each image beside what another one counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from distillctl.api.method import Batch
from distillctl.api.task import Evaluation, Meter, Task
from distillctl.rundir.answers import Answers


class KeepingMeter:
    """Implements `Meter` by another one, whose figures do not change.

    keep: of what `Task.predict` gave and its batch, what is kept: tensors with a row for each image.
    """

    def __init__(self, meter: Meter, keep: Callable[[Any, Batch], Mapping[str, Tensor]]) -> None:
        self._meter, self._keep = meter, keep
        self._kept: list[dict[str, Tensor]] = []

    def add(self, predictions: Any, batch: Batch) -> None:
        """Keeps them on the device, without waiting for it."""
        self._meter.add(predictions, batch)
        if found := self._keep(predictions, batch):
            self._kept.append({"index": batch.index, **found})

    def state(self) -> Any:
        return self._meter.state(), [{name: value.cpu() for name, value in kept.items()} for kept in self._kept]

    def merge(self, states: Sequence[Any]) -> None:
        self._meter.merge([state[0] for state in states])
        self._kept = [kept for state in states for kept in state[1]]

    def result(self) -> Evaluation:
        return self._meter.result()

    def kept(self) -> dict[str, Tensor]:
        """What was kept of all images, in the order of the split; empty where the task keeps nothing. Called after `merge`."""
        if not self._kept:
            return {}
        whole = {name: torch.cat([kept[name] for kept in self._kept]) for name in self._kept[0]}
        order = whole["index"].argsort(stable=True)
        return {name: value[order] for name, value in whole.items()}


def keeping(task: Task, meter: Meter | None = None) -> KeepingMeter:
    """A meter of the task that keeps what `Task.kept` says, around another one or around the task's own."""
    return KeepingMeter(task.meter() if meter is None else meter, task.kept)


def answers_of(kept: Mapping[str, Tensor]) -> Answers:
    """What `kept` gave, for a file."""
    arrays = {name: value.detach().cpu().numpy() for name, value in kept.items()}
    return Answers(**arrays)


__all__ = ["KeepingMeter", "answers_of", "keeping"]
