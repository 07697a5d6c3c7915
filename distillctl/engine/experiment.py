"""All that a run consists of, built and ready. `distillctl.assemble` makes it from a profile; the engine runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from distillctl.api.data import Images, Splits
from distillctl.data import EvalLoader, TrainLoader
from distillctl.engine.objective import Objective
from distillctl.engine.schedule import Schedule
from distillctl.features import Tapped

Precision = Literal["fp32", "bf16", "fp16"]
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Settings:
    """Numbers of a run; see the `[train]` table for what each means."""

    seed: int
    epochs: int
    precision: Precision = "fp32"
    compiled: bool = False
    clip_grad_norm: float = 0.0
    ema: float = 0.0
    ema_ramp: float = 2000.0
    keep_every: int = 0
    evaluate_every: int = 1


@dataclass
class Experiment:
    """A run, ready to start.

    teacher: None where no method needs one.
    evaluation: makes a loader for one split.
    digest: of the resolved profile; a checkpoint of another run is refused by it.
    notes: what the user should know of how it was built.
    """

    student: Tapped
    teacher: Tapped | None
    objective: Objective
    splits: Splits
    loader: TrainLoader
    evaluation: Callable[[Images], EvalLoader]
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    settings: Settings
    device: torch.device
    digest: str
    notes: tuple[str, ...] = ()

    @property
    def model(self) -> nn.Module:
        """The student itself."""
        return self.student.model

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.settings.epochs * self.loader.steps

    def close(self) -> None:
        """Ends the loader's processes and takes the hooks off the models."""
        self.loader.close()
        self.student.close()
        if self.teacher is not None:
            self.teacher.close()
