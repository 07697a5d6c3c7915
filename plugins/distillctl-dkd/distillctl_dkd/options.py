"""Options of `dkd`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distillctl import Options


class DKDOptions(Options):
    """Options of `dkd`."""

    temperature: Annotated[float, Field(gt=0)] = 4.0
    """Divides the logits of both sides."""
    alpha: Annotated[float, Field(ge=0)] = 1.0
    """Factor of the part on the target class."""
    beta: Annotated[float, Field(ge=0)] = 8.0
    """Factor of the part on all other classes."""
