"""Options of `fitnet`."""

from __future__ import annotations

from typing import Literal

from distillctl import Options, StageName


class FitNetOptions(Options):
    """Options of `fitnet`."""

    student_stage: StageName = "stage2"
    """The student's feature map, which is regressed (the guided layer): a stage, `last`, or a module path."""
    teacher_stage: StageName = "stage2"
    """The teacher's feature map (the hint): a stage, `last`, or a module path."""
    activation: Literal["auto", "relu", "none"] = "auto"
    """End of the regressor. `auto` takes ReLU if the teacher's map has no negative value for two images of noise, and nothing otherwise."""
