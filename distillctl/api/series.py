"""What trackers share that draw curves: every number of a run by a flat name, at the step where it was measured, and each once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from distillctl.api.tracker import RunStart, StepReport, Tracker


def flat(values: Mapping[str, Any], separator: str = ".", above: str = "") -> Iterator[tuple[str, Any]]:
    """`{"val": {"top1": 0.5}}` → `val.top1`, 0.5."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, separator, f"{above}{name}{separator}")
        else:
            yield f"{above}{name}", value


def numbers(values: Mapping[str, Any], above: str = "") -> dict[str, float]:
    """The numbers by name, `val/top1`; texts and lists are left out."""
    found = flat(values, "/", above)
    return {name: value for name, value in found if isinstance(value, int | float) and not isinstance(value, bool)}


class SeriesTracker(Tracker):
    """A tracker whose service keeps numbers by name and step.

    A step is a batch, counted from the beginning of the run through all its epochs. Epochs have the names of `metrics.jsonl` (`val/top1`,
    `terms/kd`, `train_top1`), reports within one begin with `step/`; beside both stands `epoch`. A run that goes on is not written again
    where the service has it already, and what the service has not, such as epochs before the tracker was switched on, is written first.
    """

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._teacher: dict[str, float] = {}
        self._before: dict[str, int] = {}
        self._steps = self._epochs = 0
        self._last = -1
        self._open = False

    @abstractmethod
    def open(self, run: RunStart, config: Mapping[str, Any]) -> int:
        """Begins at the service, or goes on there with what it calls `run.id`. Gives the last step that it has; −1 if none.

        config: the resolved profile by flat names (`optimizer.lr`), and what the run is.
        """

    @abstractmethod
    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step that is later than those before."""

    def summarise(self, step: int, values: Mapping[str, float]) -> None:
        """The result by name (`result/best/top1`), and the teacher's figures (`teacher/top1`), at the last step."""

    def shut(self) -> None:
        """The end, if it was opened."""

    def teacher(self, split: str, figures: Mapping[str, float], text: str) -> None:
        self._teacher = numbers(figures, "teacher/")

    def begin(self, run: RunStart) -> None:
        done = 0
        for part, epochs in run.parts:
            self._before[part] = done
            done += epochs
        self._steps = run.steps
        about = {"profile": run.name, "run": str(run.path), "data": run.data, "device": run.device}
        self._last = self.open(run, {**about, **dict(flat(run.resolved))})
        self._open = True
        for record in run.records:
            self.epoch(record)

    def batch(self, report: StepReport) -> None:
        done = self._before[report.part] + report.epoch - 1
        told = {"total": report.total, "terms": report.terms, "lr": report.lr, "images_per_second": report.images_per_second}
        trained = {f"train_{name}": value for name, value in report.figures.items()}
        self._write(done * self._steps + report.done, done + report.done / report.steps, numbers({**told, **trained}, "step/"))

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._epochs += 1
        self._write(self._epochs * self._steps, self._epochs, numbers(record))

    def end(self, result: Mapping[str, Any]) -> None:
        self.summarise(self._epochs * self._steps, {**self._teacher, **numbers(result, "result/")})

    def close(self) -> None:
        if self._open:
            self.shut()

    def _write(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        if step > self._last:
            self._last = step
            self.write(step, {**values, "epoch": epoch})


__all__ = ["SeriesTracker", "flat", "numbers"]
