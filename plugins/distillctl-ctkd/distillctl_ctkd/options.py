"""Options of `ctkd`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distillctl import Options


class CTKDOptions(Options):
    """Options of `ctkd`."""

    t_start: Annotated[float, Field(gt=0)] = 1.0
    """Lower end of the temperature, never reached."""
    t_end: Annotated[float, Field(gt=0)] = 20.0
    """Width of the range: the temperature stays between t_start and t_start + t_end."""
    loops: Annotated[float, Field(gt=0)] = 10.0
    """Epochs over which the reversed gradient grows to its full strength."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of the temperature's parameter; the authors' code has 5e-4, which pulls it to the middle of the range."""
