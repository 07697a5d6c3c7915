"""Options of the models."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distillctl import Options


class CIFARModelOptions(Options):
    """What all models of the zoo have."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the classifier's inputs that is dropped in training; the published recipes drop none."""


class ResNetOptions(CIFARModelOptions):
    """ResNets, but not the wide ones, whose stages end before a normalisation of their own width."""

    stages: Annotated[int, Field(ge=1, le=4)] | None = None
    """End after so many of the stages, with an average and a classifier there: a student that is the beginning of its teacher, and may
    start from the teacher's weights by `checkpoint`. Without it, all."""
