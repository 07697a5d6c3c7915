"""Tells all trackers of a run what happens, and keeps those of plugins from stopping it or holding it up."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from queue import Full, Queue
from threading import Thread
from typing import Any, Final

from distillctl.api.tracker import RunStart, StepReport, Tracker
from distillctl.rundir.directory import RunDirectory
from distillctl.text import counted, one_line

PATIENCE = 10.0
"""Seconds that a run waits at its end for all trackers of plugins together."""
MOST_WAITING = 10_000
"""Calls that may wait for one tracker: more than the epochs of a run."""
left_behind: Final[list[str]] = []
"""Trackers that hung when a run of this process ended; what their clients do when Python ends may hang as well."""


class Record(Tracker):
    """Writes `metrics.jsonl`. It is told of an epoch before the checkpoint that counts on its line."""

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self._run = run

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._run.append(dict(record))


class _Beside:
    """A tracker of a plugin in a thread of its own: it is told everything in order, and nobody waits for it but `end`.

    problem: what became of it, once it is told nothing any more; empty before.
    """

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.problem = ""
        self._name, self._tracker = name, tracker
        self._calls: Queue[tuple[str, tuple[Any, ...]]] = Queue(MOST_WAITING)
        self._now = ""
        # A daemon: one that hangs keeps no process alive. A forked process has the queue and no thread, and never looks at it.
        self._thread = Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def tell(self, what: str, facts: tuple[Any, ...]) -> None:
        """A report on an epoch so far is left out where it would have to wait, since the next one says more."""
        if what == "batch" and not self._calls.empty():
            return
        try:
            self._calls.put_nowait((what, facts))
        except Full:
            self._give_up(f"hangs in `{self._now}`, and the run goes on without it")

    def end(self, until: float) -> None:
        """Waits until it was told everything, `close` being the last, but not beyond this moment of `time.monotonic`."""
        try:
            self._thread.join(max(until - time.monotonic(), 0))
        finally:  # a second Ctrl-C ends the waiting
            if self._thread.is_alive():
                lost = counted(self._calls.qsize() + 1, "call")
                self._give_up(f"was not ready {PATIENCE:g} s after the run, but in `{self._now}`: {lost} may be lost")

    def _give_up(self, why: str) -> None:
        self.problem = f"the tracker `{self._name}` {why}"
        left_behind.append(self._name)

    def _work(self) -> None:
        while not self.problem and self._now != "close":
            self._now, facts = self._calls.get()
            try:
                getattr(self._tracker, self._now)(*facts)
            except BaseException as error:  # noqa: BLE001 - a tracker may raise anything, and stops no run
                why = one_line(f"{type(error).__name__}: {error}".removesuffix(": "), 200)
                self.problem = self.problem or f"the tracker `{self._name}` failed in `{self._now}`, and the run goes on without it: {why}"


class Trackers(Tracker):
    """All trackers of a run as one.

    own: ours, whose errors are errors of the run (a full disk, say).
    foreign: those of plugins by name, each in a thread of its own. One that raises is told nothing any more.
    """

    def __init__(self, own: Sequence[Tracker] = (), foreign: Mapping[str, Tracker] | None = None) -> None:
        super().__init__()
        self._own = list(own)
        self._foreign = [_Beside(name, tracker) for name, tracker in (foreign or {}).items()]

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
        """Waits for trackers of plugins, `PATIENCE` at most."""
        self._tell("close")
        until = time.monotonic() + PATIENCE
        for tracker in self._foreign:
            tracker.end(until)
        self._leave_out()

    def _tell(self, what: str, *facts: Any) -> None:
        self._leave_out()
        for tracker in self._own:
            getattr(tracker, what)(*facts)
        for beside in self._foreign:
            # A copy each: what one does to its record is nothing to the others.
            beside.tell(what, tuple(copy.deepcopy(fact) if isinstance(fact, dict) else fact for fact in facts))

    def _leave_out(self) -> None:
        """Takes leave of those that failed or hang, with a word."""
        lost = [beside for beside in self._foreign if beside.problem]
        self._foreign = [beside for beside in self._foreign if beside not in lost]
        for beside in lost:
            self.note(f"WARNING: {beside.problem}")


__all__ = ["Record", "Trackers", "left_behind"]
