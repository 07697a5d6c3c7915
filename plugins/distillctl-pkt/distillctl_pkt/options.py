"""Options of `pkt`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distillctl import Options, StageName


class PKTOptions(Options):
    """Options of `pkt`."""

    student_stage: StageName = "pooled"
    """The student's feature: what its classifier receives, or another one, of any shape."""
    teacher_stage: StageName = "pooled"
    """The teacher's feature, likewise."""
    eps: Annotated[float, Field(gt=0)] = 1e-7
    """Added to the probabilities of both sides within the logarithm."""
