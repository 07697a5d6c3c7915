"""Options of `pefd`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distillctl import Options, StageName


class PEFDOptions(Options):
    """Options of `pefd`."""

    projectors: Annotated[int, Field(ge=1)] = 3
    """q, the number of projections that are averaged."""
    student_stage: StageName = "pooled"
    """The student's feature: what its classifier receives, or another one; maps are averaged over their positions."""
    teacher_stage: StageName = "pooled"
    """The teacher's feature, likewise."""
