"""Options of `tensorboard`."""

from __future__ import annotations

from distillctl import Options, PathOption


class TensorBoardOptions(Options):
    """Options of `tensorboard`. Keys and passwords are none: the service's own variables and files have them."""

    folder: PathOption | None = None
    """Where the files lie; `tensorboard` in the run directory by default. A run has a folder of its own below this one."""
