"""Options of `tfkd` and `tfkd-self`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distillctl import Options, Temperature


class TfKDOptions(Options):
    """Options of `tfkd`."""

    correct_probability: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """a, what the virtual teacher gives to the true class before softening; the other classes share the rest. Above 1/C."""
    temperature: Temperature = 20.0
    """τ, softens the virtual teacher."""
    soften: Literal["probabilities", "log_probabilities"] = "probabilities"
    """What τ divides before the softmax: the probabilities (the authors' code), or their logarithms, as is usual for a temperature."""
    student_temperature: Temperature = 1.0
    """T, divides the student's logits; the loss is multiplied by T². 1 is the authors' code; in the paper's formula T = τ."""


class TfKDSelfOptions(Options):
    """Options of `tfkd-self`."""

    temperature: Temperature = 6.0
    """T, divides the logits of both sides."""
