"""Who teaches: for a batch, what the task looks at in the teacher. The step does not know whether a network computes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import nn

from distillctl.api.method import Batch
from distillctl.api.task import Task
from distillctl.engine.objective import Looks, teacher_of
from distillctl.engine.precision import autocast
from distillctl.models.features import Tapped, batch_statistics


class Teacher(Protocol):
    """The teacher of a run."""

    def look(self, batch: Batch, asked: Iterable[str]) -> Looks:
        """What it sees in a batch, under every key that is asked for (`Weighted.asks`); without gradients."""

    def close(self) -> None:
        """Takes its hooks off the model; it cannot be used afterwards."""


class LiveTeacher:
    """A network that runs at every step. Implements `Teacher`.

    network: frozen, in evaluation mode.
    """

    def __init__(self, task: Task, network: Tapped, *, device: torch.device, precision: str) -> None:
        self.network = network
        self._task, self._device, self._precision = task, device, precision
        self._forward: nn.Module = network

    @property
    def networks(self) -> tuple[Tapped, ...]:
        """All that run; of this one, it alone."""
        return (self.network,)

    def compile(self) -> None:
        """Looks through a compiled network from now on."""
        self._forward = torch.compile(self.network, dynamic=False)  # type: ignore[assignment]

    def look(self, batch: Batch, asked: Iterable[str]) -> Looks:
        return {key: self._look(batch, key) for key in asked}

    def _look(self, batch: Batch, key: str) -> dict[str, torch.Tensor]:
        batch_norm = teacher_of(key).norm == "batch"
        statistics: AbstractContextManager[None] = batch_statistics(self.network) if batch_norm else nullcontext()
        with torch.no_grad(), autocast(self._device, self._precision), statistics:
            return dict(self._task.look(self._forward, batch))

    def close(self) -> None:
        self.network.close()


class LiveTeachers:
    """Several networks that run at every step, each where somebody asks it. Implements `Teacher`.

    network: all of them as one, whom evaluations ask.
    names: a name of its own for each.
    """

    def __init__(self, teachers: Sequence[LiveTeacher], network: Tapped, names: Sequence[str]) -> None:
        self.network, self.names = network, tuple(names)
        self._teachers = tuple(teachers)

    @property
    def networks(self) -> tuple[Tapped, ...]:
        """Each by itself."""
        return tuple(teacher.network for teacher in self._teachers)

    def compile(self) -> None:
        """Looks through compiled networks from now on."""
        for teacher in self._teachers:
            teacher.compile()

    def look(self, batch: Batch, asked: Iterable[str]) -> Looks:
        return {key: found for key in asked for found in self._teachers[teacher_of(key).number].look(batch, [key]).values()}

    def close(self) -> None:
        for teacher in self._teachers:
            teacher.close()


__all__ = ["LiveTeacher", "LiveTeachers", "Teacher"]
