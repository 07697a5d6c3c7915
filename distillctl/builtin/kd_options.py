"""Options of `kd`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distillctl.api.options import Options, Temperature


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


class SoftTargetOptions(KDOptions):
    """Options of `soft-target`."""

    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.7
    """r: the term's factor is r/(1 − r), 2.33 for 0.7; the label loss has the factor 1."""
