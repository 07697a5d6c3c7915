"""Options of `fsp`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distillctl import Options, StageNames


class FSPOptions(Options):
    """Options of `fsp`."""

    student_stages: StageNames = ["stem", "stages"]  # noqa: RUF012 - pydantic copies defaults
    """The student's feature maps, shallow to deep; neighbours make a pair. `["stages"]` for a model without a `stem`."""
    teacher_stages: StageNames = ["stem", "stages"]  # noqa: RUF012
    """The teacher's feature maps, each with as many channels as the student's at the same place."""
    pool: Literal["average", "max"] = "average"
    """How the larger map of a pair is brought to the size of the smaller: averages (RepDistiller) or maxima (the paper)."""
    init_epochs: Annotated[int, Field(ge=0)] = 30
    """Epochs in which the student's body learns from this loss alone, before the labels; with 0 it is added to the label loss of the
    whole run instead."""
