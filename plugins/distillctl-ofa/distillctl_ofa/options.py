"""Options of `ofa`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distillctl import Factor, Options, StageNames


class OFAOptions(Options):
    """Options of `ofa`."""

    student_stages: StageNames = ["stages"]
    """The student's feature maps that get a branch, shallow to deep."""
    eps: Annotated[float, Field(ge=0.01, le=10)] = 1.0
    """ε, the exponent: above 1, the target class counts for more where the teacher is sure of it, and the others for less."""
    variant: Literal["code", "paper"] = "code"
    """At the label's class and elsewhere, the authors' code takes (1 + p)^ε − 1 and p^ε, their paper (1 + p)^ε and p."""
    branch_weight: Factor = 1.0
    """Factor of the sum over the branches; 0 builds none."""
    logits_weight: Factor = 1.0
    """Factor of the part on the student's own logits."""

    @model_validator(mode="after")
    def _stages_have_an_effect(self) -> Self:
        if self.branch_weight == 0 and self.student_stages != type(self).model_fields["student_stages"].default:
            raise ValueError("`student_stages` has no effect with `branch_weight = 0`: no stage gets a branch")
        return self
