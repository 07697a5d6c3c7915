"""Tells all trackers of a run what happens, and keeps those of plugins from stopping it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from distillctl.api.tracker import RunStart, StepReport, Tracker
from distillctl.rundir.directory import RunDirectory
from distillctl.text import one_line


class Record(Tracker):
    """Writes `metrics.jsonl`. It is told of an epoch before the checkpoint that counts on its line."""

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self._run = run

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._run.append(dict(record))


class Trackers(Tracker):
    """All trackers of a run as one.

    own: ours, whose errors are errors of the run (a full disk, say).
    foreign: those of plugins by name. One that raises is told nothing any more.
    """

    def __init__(self, own: Sequence[Tracker] = (), foreign: Mapping[str, Tracker] | None = None) -> None:
        super().__init__()
        self._own = list(own)
        self._foreign = dict(foreign or {})

    def begin(self, run: RunStart) -> None:
        self._tell("begin", run)

    def note(self, text: str) -> None:
        self._tell("note", text)

    def teacher(self, split: str, figures: Mapping[str, float], text: str) -> None:
        self._tell("teacher", split, figures, text)

    def batch(self, report: StepReport) -> None:
        self._tell("batch", report)

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._tell("epoch", record)

    def end(self, result: Mapping[str, Any]) -> None:
        self._tell("end", result)

    def close(self) -> None:
        self._tell("close")

    def _tell(self, what: str, *facts: Any) -> None:
        for tracker in self._own:
            getattr(tracker, what)(*facts)
        for name, tracker in list(self._foreign.items()):
            try:
                # A copy each: what one does to its record is nothing to the others.
                getattr(tracker, what)(*(copy.deepcopy(fact) if isinstance(fact, dict) else fact for fact in facts))
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a tracker may raise anything, and stops no run
                del self._foreign[name]
                why = one_line(f"{type(error).__name__}: {error}".removesuffix(": "), 200)
                self.note(f"WARNING: the tracker `{name}` failed in `{what}`, and the run goes on without it: {why}")


__all__ = ["Record", "Trackers"]
