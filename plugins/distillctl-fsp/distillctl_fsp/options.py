"""Options of `fsp`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distillctl import Options, StageNames


class FSPOptions(Options):
    """Options of `fsp`."""

    student_stages: StageNames = ["stem", "stages"]
    """The student's feature maps, shallow to deep; neighbours make a pair. `["stages"]` for a model without a `stem`."""
    teacher_stages: StageNames = ["stem", "stages"]
    """The teacher's feature maps, each with as many channels as the student's at the same place."""
    pool: Literal["average", "max"] = "average"
    """How the larger map of a pair is brought to the size of the smaller: averages (RepDistiller) or maxima (the paper)."""
    init_epochs: Annotated[int, Field(ge=0)] = 30
    """Epochs in which the student's body learns from this loss alone, before the labels; with 0 it is added to the label loss of the
    whole run instead."""
    init_lr: Annotated[float, Field(gt=0, le=1e3)] | None = None
    """Learning rate of the phase `init`, constant; none takes the optimizer's `lr`."""

    @model_validator(mode="after")
    def _rate_has_an_effect(self) -> Self:
        if self.init_epochs == 0 and self.init_lr is not None:
            raise ValueError("`init_lr` has no effect with `init_epochs = 0`: there is no phase")
        return self
