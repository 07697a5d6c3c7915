"""Options of `digits`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distillctl import Options

Fraction = Annotated[float, Field(ge=0, le=0.8)]


class DigitsOptions(Options):
    """Options of `digits`."""

    val_fraction: Fraction = 0.15
    """Share of every class that is carved out for validation, of what the test split leaves; 0 means none."""
    test_fraction: Fraction = 0.25
    """Share of every class that is carved out for the test, before the validation part; 0 means none."""
    augment: Literal["none", "crop_flip"] = "none"
    """`crop_flip` shifts by up to one pixel and mirrors, which makes some digits look like others: for trying things out."""
