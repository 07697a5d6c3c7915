"""Who is told what happens in a run: the display, the record, and whatever a plugin sends it to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunStart:
    """A run that is about to train.

    path: the run directory.
    name: of the profile.
    resolved: every value of the profile, as plain data.
    data: one line on the data set.
    student, method: their names.
    parts: name and epochs of every part; the main part is the last.
    steps: in an epoch.
    device: where it trains.
    metric: the figure that chooses the best epoch.
    names: words for the figures, where there are some.
    show: a figure's name and value as text.
    records: of the epochs that are finished already, oldest first.
    id: the same whenever the run goes on, and of no other run: what a service calls it.
    """

    path: Path
    name: str
    resolved: Mapping[str, Any]
    data: str
    student: str
    method: str
    parts: tuple[tuple[str, int], ...]
    steps: int
    device: str
    metric: str
    names: Mapping[str, str]
    show: Callable[[str, float], str]
    records: Sequence[Mapping[str, Any]] = ()
    id: str = ""

    @property
    def epochs(self) -> int:
        """Of all parts together."""
        return sum(count for _, count in self.parts)


@dataclass(frozen=True)
class StepReport:
    """Means over an epoch so far.

    part, epoch: the part's name, and the epoch of it, from 1.
    done, steps: batches of the epoch that are done, and all of them.
    total, terms: the weighted sum, and every unweighted loss term by name.
    figures: of training, such as `top1`.
    images: that were seen in this epoch.
    images_per_second, lr: since the epoch began; of the last step.
    """

    part: str
    epoch: int
    done: int
    steps: int
    total: float
    terms: Mapping[str, float]
    figures: Mapping[str, float]
    images: int
    images_per_second: float
    lr: float


class Tracker:
    """The base of trackers; every method does nothing unless it is overridden.

    A tracker cannot stop a run, hold it up or change it. One of a plugin is told everything in order in a thread of its own; if one of its
    methods raises, the run says so once and goes on without it. It draws from no generator that the whole process shares.
    Where several processes train together, only the first has trackers.
    """

    def __init__(self, options: Any = None) -> None:
        self.options = options

    def begin(self, run: RunStart) -> None:
        """Training is about to begin or to go on."""

    def note(self, text: str) -> None:
        """One line worth telling; it may come before `begin`."""

    def teacher(self, split: str, figures: Mapping[str, float], text: str) -> None:
        """The teacher was evaluated, before `begin`. text: the figure that counts, in words."""

    def batch(self, report: StepReport) -> None:
        """About once a second."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch is over: the line of `metrics.jsonl`."""

    def end(self, result: Mapping[str, Any]) -> None:
        """The run is finished: the key `result` of `run.json`."""

    def close(self) -> None:
        """The last call, whether the run is finished, stopped or failed."""


__all__ = ["RunStart", "StepReport", "Tracker"]
