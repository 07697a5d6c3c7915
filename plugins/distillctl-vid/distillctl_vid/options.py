"""Options of `vid`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distillctl import Options, StageNames


class VIDOptions(Options):
    """Options of `vid`."""

    student_stages: StageNames = ["stages"]
    """The student's feature maps, shallow to deep; `stages` stands for all stages of the model."""
    teacher_stages: StageNames = ["stages"]
    """The teacher's feature maps, in the same order."""
    init_variance: Annotated[float, Field(ge=1e-6, le=1e6)] = 5.0
    """σ² of every channel at the start; larger than `eps`."""
    eps: Annotated[float, Field(ge=1e-20, le=100)] = 1e-5
    """Lower bound of the variances."""
