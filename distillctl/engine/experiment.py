"""All that a run consists of, built and ready. `distillctl.build.experiment` makes it from a profile; the engine runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from distillctl.api.data import Images, Splits
from distillctl.api.method import Phase
from distillctl.api.task import Task
from distillctl.data import EvalLoader, TrainLoader
from distillctl.distributed.process_group import ALONE, ProcessGroup
from distillctl.engine.mixing import Mixing
from distillctl.engine.objective import Objective
from distillctl.engine.precision import Precision
from distillctl.engine.schedule import Schedule
from distillctl.engine.teacher import LiveTeacher, LiveTeachers, Teacher
from distillctl.models.features import Tapped

MAIN = "main"
"""Name of the main part of a run."""


@dataclass(frozen=True)
class Settings:
    """Numbers of a run; see the `[train]` table for what each means. `save_every` is in seconds, `inf` for never."""

    seed: int
    epochs: int
    precision: Precision = "fp32"
    compiled: bool = False
    cuda_graph: Literal["auto", "off", "on"] = "off"
    clip_grad_norm: float = 0.0
    ema: float = 0.0
    ema_ramp: float = 2000.0
    keep_every: int = 0
    evaluate_every: int = 1
    save_every: float = 300.0
    deterministic: bool = False
    mixing: Mixing | None = None
    patience: int | None = None


@dataclass(frozen=True)
class Part:
    """A part of a run with an optimizer of its own: a phase of a method, or the main part.

    name: `main`, or METHOD.PHASE.
    begin: epochs of the run before it.
    schedule: over its own length.
    method, phase: whose phase it is, and which.
    """

    name: str
    begin: int
    epochs: int
    schedule: Schedule
    method: str = ""
    phase: Phase | None = None


@dataclass
class Experiment:
    """A run, ready to start.

    task: what its data ask for.
    teacher: None where no method needs one.
    objectives: one for each student.
    evaluation: makes a loader for one split.
    build_optimizer: from parameter groups; every part of the run has its own.
    parts: in the order in which they are trained; the main part is the last.
    head: description of the head that took the place of the student's classifier (`distillctl.models.heads`); None if it was kept.
    digest: of the resolved profile; a checkpoint of another run is refused by it.
    notes: what the user should know of how it was built.
    teacher_called: name and file of each teacher, for messages.
    processes: this one among those that train the run together.
    """

    task: Task
    teacher: Teacher | None
    objectives: tuple[Objective, ...]
    loader: TrainLoader
    evaluation: Callable[[Images], EvalLoader]
    build_optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
    parts: tuple[Part, ...]
    settings: Settings
    device: torch.device
    digest: str
    head: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    teacher_called: tuple[str, ...] = ()
    processes: ProcessGroup = ALONE

    @property
    def splits(self) -> Splits:
        """The data."""
        return self.task.data

    @property
    def objective(self) -> Objective:
        """The objective of a run with one student."""
        (only,) = self.objectives
        return only

    @property
    def student(self) -> Tapped:
        """The tapped student of a run with one."""
        return self.objective.student

    @property
    def model(self) -> nn.Module:
        """The student itself, of a run with one."""
        return self.student.model

    @property
    def network(self) -> Tapped | None:
        """The teacher's network, if one runs in this process; of several, all as one (`distillctl.models.ensemble.Ensemble`)."""
        return self.teacher.network if isinstance(self.teacher, LiveTeacher | LiveTeachers) else None

    @property
    def networks(self) -> tuple[Tapped, ...]:
        """The teachers' networks, each by itself."""
        return self.teacher.networks if isinstance(self.teacher, LiveTeacher | LiveTeachers) else ()

    @property
    def teacher_names(self) -> tuple[str, ...]:
        """Of several teachers; empty where there is one or none."""
        return self.teacher.names if isinstance(self.teacher, LiveTeachers) else ()

    @property
    def main(self) -> Part:
        """The main part."""
        return self.parts[-1]

    @property
    def epochs(self) -> int:
        """Of all parts together."""
        return self.main.begin + self.main.epochs

    def part(self, epoch: int) -> Part:
        """The part that the epoch (from 0, over the whole run) belongs to."""
        return next(part for part in reversed(self.parts) if epoch >= part.begin)

    def close(self) -> None:
        """Ends the loader's processes and takes the hooks off the models."""
        self.loader.close()
        for objective in self.objectives:
            objective.student.close()
        if self.teacher is not None:
            self.teacher.close()
