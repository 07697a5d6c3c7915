"""Options of `at`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distillctl import Options, StageNames


class ATOptions(Options):
    """Options of `at`."""

    student_stages: StageNames = ["stages"]
    """The student's feature maps, shallow to deep; `stages` stands for all declared stages without the stem."""
    teacher_stages: StageNames = ["stages"]
    """The teacher's feature maps, one for each of the student's."""
    power: Annotated[float, Field(ge=1, le=20)] = 2.0
    """p, the power of the absolute activations. The larger, the more the strongest positions count."""
    mode: Literal["code", "paper"] = "code"
    """Distance of two attention maps: `code` is the mean of the squares over the positions, `paper` the L2 norm, which is not squared."""
