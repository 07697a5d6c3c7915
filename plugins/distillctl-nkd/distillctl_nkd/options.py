"""Options of `nkd`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distillctl import Options


class NKDOptions(Options):
    """Options of `nkd`."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Divides the logits of both sides in the part on the other classes; the part on the target class has none."""
    gamma: Annotated[float, Field(ge=0)] = 1.5
    """Factor of the part on all classes but the target."""
