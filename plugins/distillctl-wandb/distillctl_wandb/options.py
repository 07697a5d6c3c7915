"""Options of `wandb`."""

from __future__ import annotations

from typing import Literal

from distillctl import Options


class WandbOptions(Options):
    """Options of `wandb`. Keys and passwords are none: the service's own variables and files have them."""

    project: str | None = None
    """The project; by default `WANDB_PROJECT`, or else `distillctl`."""
    entity: str | None = None
    """The user or team; by default `WANDB_ENTITY`, or else the user."""
    group: str | None = None
    """Runs of one group are shown together, such as the seeds of an experiment."""
    tags: list[str] = []
    """Words to find it by."""
    mode: Literal["online", "offline"] | None = None
    """`offline` keeps everything in the run directory, for `wandb sync`; by default `WANDB_MODE`, or else `online`."""
