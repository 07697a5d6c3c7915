"""Options of `ft`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distillctl import Options, StageName


class FTOptions(Options):
    """Options of `ft`."""

    student_stage: StageName = "last"
    """The student's feature map: a stage, `last`, `final`, or a module path."""
    teacher_stage: StageName = "last"
    """The teacher's feature map: a stage, `last`, `final`, or a module path."""
    rate: Annotated[float, Field(gt=0, le=16)] = 0.5
    """k, the paraphrase rate: channels of the factors, as a share of the teacher's."""
    factor: Literal["attention", "full"] = "attention"
    """What is normalised and compared: the mean of |F|^p1 over the channels (RepDistiller), or the whole factor (the paper)."""
    p1: Annotated[float, Field(ge=1, le=20)] = 2.0
    """Power of the factor in its mean over the channels; only with `factor = "attention"`."""
    p2: Annotated[float, Field(ge=1, le=20)] = 1.0
    """Power of the differences: 1 for absolute values, 2 for squares."""
    batch_norm: bool = True
    """Batch normalisation in the translator. The paraphraser has none."""
    init_epochs: Annotated[int, Field(ge=1)] = 30
    """Epochs in which the paraphraser is trained, before the student's."""
    init_lr: Annotated[float, Field(gt=0, le=1e3)] = 0.01
    """Learning rate of the paraphraser, constant."""

    @model_validator(mode="after")
    def _power_has_an_effect(self) -> Self:
        if self.factor == "full" and self.p1 != type(self).model_fields["p1"].default:
            raise ValueError('`p1` belongs to `factor = "attention"`; the whole factor is not raised to a power')
        return self
