"""Options of `simkd`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distillctl import Options, StageName


class SimKDOptions(Options):
    """Options of `simkd`."""

    student_stage: StageName = "final"
    """The student's feature map: a stage, `final`, or a module path."""
    teacher_stage: StageName = "final"
    """The teacher's feature map, whose average its classifier receives."""
    reduction: Annotated[int, Field(ge=1)] = 2
    """Reduction factor f: the inner convolutions of the projector have C_t / f channels."""
