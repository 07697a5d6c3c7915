"""Options of `rdrop`."""

from __future__ import annotations

from typing import Literal

from distillctl import Options


class RDropOptions(Options):
    """Options of `rdrop`."""

    reduction: Literal["batchmean", "sum"] = "batchmean"
    """Reduction over the batch. `sum` is that of other implementations: at 64 images it is 64 times as strong."""
