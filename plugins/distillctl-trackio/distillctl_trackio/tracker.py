"""Runs in Trackio, which keeps them in a folder of this machine or in a Space of Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trackio

from distillctl import RunStart, SeriesTracker
from distillctl_trackio.options import TrackioOptions


class TrackioTracker(SeriesTracker):
    """Logs curves, the resolved profile as the configuration, and the result at the last step."""

    options: TrackioOptions

    def open(self, run: RunStart, config: Mapping[str, Any]) -> int:
        self._run = trackio.init(
            project=self.options.project,
            group=self.options.group,
            space_id=self.options.space_id,
            name=f"{run.path.name}-{run.id[:6]}",
            resume="allow",
            config=dict(config),
            embed=False,
        )
        return int(self._run._next_step) - 1  # what it has of a run it tells nowhere else

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def summarise(self, step: int, values: Mapping[str, float]) -> None:
        self.write(step, values)

    def shut(self) -> None:
        self._run.finish()  # type: ignore[no-untyped-call]
