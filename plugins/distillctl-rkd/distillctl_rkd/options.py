"""Options of `rkd`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from distillctl import Epsilon, Factor, Options, StageName


class RKDOptions(Options):
    """Options of `rkd`."""

    distance_weight: Factor = 25.0
    """Factor of the part on distances; 0 leaves it out."""
    angle_weight: Factor = 50.0
    """Factor of the part on angles; 0 leaves it out."""
    student_stage: StageName = "pooled"
    """The student's feature: what its classifier receives, or another one, of any shape."""
    teacher_stage: StageName = "pooled"
    """The teacher's feature, likewise."""
    squared: bool = False
    """Compare squared distances, divided by their mean."""
    eps: Epsilon = 1e-12
    """Lower bound of the squared distances of two samples."""
    chunk: Annotated[int, Field(ge=0)] = 0
    """Samples whose angles are computed at once, and again in the backward pass, which saves memory for large batches; 0 means all."""

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> Self:
        for factor, names in (("distance_weight", ("squared", "eps")), ("angle_weight", ("chunk",))):
            for name in names:
                if not getattr(self, factor) and getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"`{name}` has no effect with `{factor} = 0`")
        return self
