"""Runs as TensorBoard's event files. What a stopped run had written beyond its last epoch, TensorBoard is told to discard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.utils.tensorboard.writer import SummaryWriter

from distillctl import RunStart, SeriesTracker
from distillctl_tensorboard.options import TensorBoardOptions


class TensorBoardTracker(SeriesTracker):
    """Writes scalars, and the resolved profile as text."""

    options: TensorBoardOptions

    def open(self, run: RunStart, config: Mapping[str, Any]) -> int:
        above = self.options.folder
        folder = run.path / "tensorboard" if above is None else above / run.path.name
        known, finished = any(folder.glob("events.out.*")), len(run.records)
        # The last finished epoch is written again: a process that was killed may have saved it and not told of it.
        self._writer = SummaryWriter(str(folder), purge_step=finished * run.steps if known else None)
        if not known:
            rows = "".join(f"| {name} | `{value}` |\n" for name, value in config.items())
            self._writer.add_text("profile", f"| key | value |\n| --- | --- |\n{rows}")
        return (finished - 1) * run.steps if known and finished else -1

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def summarise(self, step: int, values: Mapping[str, float]) -> None:
        self.write(step, values)

    def shut(self) -> None:
        self._writer.close()
