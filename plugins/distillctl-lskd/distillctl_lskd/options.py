"""Options of `lskd`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distillctl import Options


class LSKDOptions(Options):
    """Options of `lskd`."""

    temperature: Annotated[float, Field(gt=0)] | None = None
    """Takes the place of the inner method's temperature; unset, it is 2, or the learnt one where the inner method learns its own."""
