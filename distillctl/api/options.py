"""The base of every table of options: unknown keys are refused, values are not converted silently."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _as_path(value: object) -> object:
    return Path(value).expanduser() if isinstance(value, str) else value


PathOption = Annotated[Path, BeforeValidator(_as_path), Field(strict=False)]
"""A path in an options model. Relative paths are meant from the current directory; `~` is expanded."""


class Options(BaseModel):
    """Options of a method, model, data set or optimizer.

    Give every field a description and its bounds; put units into the name (`warmup_epochs`). Lists are `list[...]`.
    What the code can measure (channels, image counts) is not an option.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True)
