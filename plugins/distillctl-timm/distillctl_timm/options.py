"""Options of timm's networks: what timm's own builders take."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distillctl import Options

Share = Annotated[float, Field(ge=0, lt=1)]


class TimmOptions(Options):
    """Any network."""

    dropout: Share | None = None
    """Share of the values dropped before the classifier (timm's `drop_rate`). Without it, timm's default for this network."""
    stochastic_depth: Share | None = None
    """Probability to drop the deepest residual branch (timm's `drop_path_rate`), where the network has it. Without it, timm's default."""


class ResNetOptions(TimmOptions):
    """ResNets and what timm builds by the same class."""

    stages: Annotated[int, Field(ge=1, le=4)] | None = None
    """End after so many of the four stages, with an average and a classifier there: a student that is the beginning of its teacher, and
    may start from the teacher's weights by `checkpoint` or `weights`. Without it, all."""


class FixedSizeOptions(TimmOptions):
    """Networks that work at one size alone."""

    image_size: Annotated[int, Field(ge=8, le=4096)] | None = None
    """Side length in pixels of the images. Without it, the size for which the network was designed."""
