"""Options of `nst`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distillctl import Options, StageNames


class NSTOptions(Options):
    """Options of `nst`."""

    student_stages: StageNames = ["stages"]
    """The student's feature maps, shallow to deep; `stages` stands for all declared stages without the stem."""
    teacher_stages: StageNames = ["stages"]
    """The teacher's feature maps, one for each of the student's."""
    kernel: Literal["poly", "linear", "rbf"] = "poly"
    """k(a, b) of two patterns: `poly` is (a·b)², `linear` is a·b, `rbf` is exp(−‖a − b‖² / 2σ²)."""
    bandwidth: Literal["mean"] | Annotated[float, Field(ge=1e-12, le=1e9)] = "mean"
    """σ² of `rbf`: a number, or `mean` for the mean of ‖s_i − t_j‖² over all pairs of channels, image by image."""

    @model_validator(mode="after")
    def _bandwidth_has_an_effect(self) -> Self:
        if self.bandwidth != "mean" and self.kernel != "rbf":
            raise ValueError(f"`bandwidth` belongs to the kernel `rbf`; `{self.kernel}` has none")
        return self
