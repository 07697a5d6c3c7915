"""Options of `crd`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distillctl import Options, Temperature


class CRDOptions(Options):
    """Options of `crd`."""

    feat_dim: Annotated[int, Field(ge=1)] = 128
    """Length of the embeddings that are compared, and of the rows of both memory banks."""
    negatives: Annotated[int, Field(ge=1)] = 16384
    """K, images of other classes that each image is told apart from, drawn with replacement."""
    temperature: Temperature = 0.07
    """τ, divides the inner products."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the old row that stays when the memory bank takes in a new embedding."""
