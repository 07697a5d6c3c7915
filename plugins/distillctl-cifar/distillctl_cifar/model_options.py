"""Options of the models."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distillctl import Options


class CIFARModelOptions(Options):
    """What all models of the zoo have."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the classifier's inputs that is dropped in training; the published recipes drop none."""
