"""Options of `ttm` and `wttm`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distillctl import Options

Exponent = Annotated[float, Field(ge=1e-4, le=1e3)]


class TTMOptions(Options):
    """Options of `ttm`."""

    gamma: Exponent = 0.1
    """γ, the power of the teacher's probabilities: 1/T of a temperature T that the teacher alone has. 1 leaves them as they are."""


class WTTMOptions(Options):
    """Options of `wttm`."""

    gamma: Exponent = 0.2
    """γ, the power of the teacher's probabilities. The smaller, the more an image of which the teacher is unsure outweighs another."""
