"""Options of `kd`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distillctl.api.options import Options

Temperature = Annotated[float, Field(gt=0)]


class TwoTemperatures(Options):
    """Different temperatures for the two sides."""

    teacher: Temperature
    """Divides the teacher's logits."""
    student: Temperature
    """Divides the student's logits."""


class KDOptions(Options):
    """Options of `kd`."""

    temperature: Temperature | TwoTemperatures = 4.0
    """Divides the logits: one number for both sides, or `{teacher = 4.0, student = 2.0}`."""
