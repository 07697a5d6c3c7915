"""Options of `byot`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distillctl import Factor, Options, StageNames, Temperature


class BYOTOptions(Options):
    """Options of `byot`."""

    student_stages: StageNames = ["stages"]
    """Stages of the student, shallow to deep. All but the last get an exit; the last says how small the maps of the exits become."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.1
    """α, factor of the soft targets in the exits; the labels have 1 − α there. `task_weight` should be 1 − α too."""
    temperature: Temperature = 3.0
    """T, divides the logits of exits and network for the soft targets."""
    beta: Factor = 1e-6
    """β, factor of the distance between the features of exits and network."""
    feature_reduction: Literal["sum", "mean"] = "sum"
    """Reduction of that distance over images and features. With `mean` the same force needs a `beta` that is B·d times larger."""
    init: Literal["kaiming"] | None = None
    """First weights of the exits' convolutions: `kaiming` draws them from He's normal distribution by fan-out, as the public code does;
    unset, PyTorch's default."""
