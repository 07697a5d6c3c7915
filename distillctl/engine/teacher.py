"""Who teaches: for a batch, what the task looks at in the teacher. The step does not know whether a network computes it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import nn

from distillctl.api.method import Batch
from distillctl.api.task import Task
from distillctl.engine.objective import Looks
from distillctl.engine.precision import autocast
from distillctl.models.features import Tapped, batch_statistics


class Teacher(Protocol):
    """The teacher of a run."""

    def look(self, batch: Batch, norms: Iterable[str]) -> Looks:
        """What it sees in a batch, with every kind of batch normalisation that is asked for; without gradients."""

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

    def compile(self) -> None:
        """Looks through a compiled network from now on."""
        self._forward = torch.compile(self.network, dynamic=False)  # type: ignore[assignment]

    def look(self, batch: Batch, norms: Iterable[str]) -> Looks:
        return {norm: self._look(batch, norm) for norm in norms}

    def _look(self, batch: Batch, norm: str) -> dict[str, torch.Tensor]:
        statistics: AbstractContextManager[None] = batch_statistics(self.network) if norm == "batch" else nullcontext()
        with torch.no_grad(), autocast(self._device, self._precision), statistics:
            return dict(self._task.look(self._forward, batch))

    def close(self) -> None:
        self.network.close()


__all__ = ["LiveTeacher", "Teacher"]
