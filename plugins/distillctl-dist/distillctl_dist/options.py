"""Options of `dist`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distillctl import Options


class DISTOptions(Options):
    """Options of `dist`."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Divides the logits of both sides."""
    beta: Annotated[float, Field(ge=0)] = 1.0
    """Factor of `inter`, which correlates the classes of each sample."""
    gamma: Annotated[float, Field(ge=0)] = 1.0
    """Factor of `intra`, which correlates the samples of each class."""
