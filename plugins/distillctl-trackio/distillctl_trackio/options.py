"""Options of `trackio`."""

from __future__ import annotations

from distillctl import Options


class TrackioOptions(Options):
    """Options of `trackio`. Keys and passwords are none: the service's own variables and files have them."""

    project: str = "distillctl"
    """The project."""
    group: str | None = None
    """Runs of one group are shown together, such as the seeds of an experiment."""
    space_id: str | None = None
    """A Space of Hugging Face, `user/name`; by default `TRACKIO_SPACE_ID`, or else a folder of this machine."""
