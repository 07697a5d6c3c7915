"""Options of `sdd`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from distillctl import Factor, Options, StageName, Temperature

_BELONGS_TO = {"alpha": "dkd", "beta": "dkd", "gamma": "nkd"}


def _nested(value: list[int]) -> list[int]:
    if len(set(value)) != len(value):
        raise ValueError("a scale is named twice")
    if 1 not in value:
        raise ValueError("the scale 1, the whole map, must be among them")
    odd = next((scale for scale in value if max(value) % scale), None)
    if odd is not None:
        raise ValueError(f"a grid of {odd}×{odd} cannot be averaged from one of {max(value)}×{max(value)}: each must divide the largest")
    return value


class SDDOptions(Options):
    """Options of `sdd`."""

    base: Literal["kd", "dkd", "nkd"] = "kd"
    """The loss ℓ of one region's logits."""
    scales: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1), AfterValidator(_nested)] = Field(default=[1, 2, 4])
    """The map is cut into s×s regions for each scale s; 1 is the whole map, and every scale divides the largest."""
    complementary_weight: Factor = 2.0
    """Weight of a region on which the teacher is right where it is wrong on the whole map, or the other way round; all others have 1."""
    student_stage: StageName = "final"
    """The student's map whose average its classifier receives: `final`, a stage, or a module path."""
    teacher_stage: StageName = "final"
    """The teacher's map whose average its classifier receives: `final`, a stage, or a module path."""
    temperature: Temperature = 4.0
    """Divides the logits of both sides; with the base `nkd` in the part on the other classes alone."""
    alpha: Factor = 1.0
    """Base `dkd`: factor of the part on the target class."""
    beta: Factor = 8.0
    """Base `dkd`: factor of the part on all other classes."""
    gamma: Factor = 1.5
    """Base `nkd`: factor of the part on all classes but the target."""

    @model_validator(mode="after")
    def _factors_have_an_effect(self) -> Self:
        fields = type(self).model_fields
        for name, base in _BELONGS_TO.items():
            if self.base != base and getattr(self, name) != fields[name].default:
                raise ValueError(f"`{name}` belongs to the base `{base}`; `{self.base}` has none")
        if self.scales == [1] and self.complementary_weight != fields["complementary_weight"].default:
            raise ValueError("`complementary_weight` has no effect with `scales = [1]`: the whole map cannot contradict itself")
        if self.base == "dkd" and self.alpha == self.beta == 0:
            raise ValueError("with `alpha` and `beta` both 0 there is nothing to learn from")
        return self
