"""Options of `ab`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distillctl import Options, StageNames


class ABOptions(Options):
    """Options of `ab`."""

    student_stages: StageNames = ["stages:pre"]
    """The student's maps, shallow to deep: stages before their last ReLU, or module paths."""
    teacher_stages: StageNames = ["stages:pre"]
    """The teacher's maps, shallow to deep; paired by name where one side alone names its stages, else from the deepest."""
    margin: Annotated[float, Field(ge=1e-3, le=1e3)] = 1.0
    """How far beyond the boundary, on the teacher's side of it, the student's value must lie to cost nothing."""
    init_epochs: Annotated[int, Field(ge=1)] = 30
    """Length of the phase `init`, in which alone the method works; `train.epochs` come after it."""
    init_lr: Annotated[float, Field(gt=0, le=1e3)] | None = None
    """Learning rate of the phase `init`, constant; none takes the optimizer's `lr`."""
