"""Trains the runs of a sweep, each in a process of its own, so that one that fails or runs out of memory takes no other with it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Literal, Protocol

from distillctl.commands.sweep import Book, Cell, Plan
from distillctl.distributed import heartbeat
from distillctl.distributed.cores import usable_cores
from distillctl.distributed.stop_signals import SIGNALS, exit_code
from distillctl.errors import Problem, RunError, StoppedError
from distillctl.rundir.lock import BusyError, held, locked

LOGS = "logs"
_LOOK = 0.05  # seconds between two looks at the processes
_STOPPED = (130, 143)
_MOST = 20  # failed runs that an error names
_MOST_BYTES = 1 << 20  # of a log, from where this process began, in which warnings and the reason of a failure are looked for
_NUMBER = re.compile(r"\d+")


class Source(Protocol):
    """Where runs come from."""

    def next(self) -> Cell | None:
        """One more; None if all are given out."""

    def done(self, cell: Cell, finished: bool) -> None:
        """One has ended."""


class Listed:
    """Runs that are all known."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._left = list(reversed(cells))

    def next(self) -> Cell | None:
        """The next of the list."""
        return self._left.pop() if self._left else None

    def done(self, cell: Cell, finished: bool) -> None:
        """Changes nothing."""


@dataclass(frozen=True)
class Event:
    """What has happened. done: ended runs, those that were finished before included. text: why it failed, or what it warns of."""

    kind: Literal["begins", "finished", "failed", "stopped", "elsewhere", "warning"]
    cell: Cell
    done: int
    text: str = ""


@dataclass
class _Child:
    cell: Cell
    process: subprocess.Popen[bytes]
    log: Path
    begin: int


@dataclass
class Runner:
    """One sweep at work.

    tell: is told of every beginning and end.
    flags: further options for each `train`.
    """

    plan: Plan
    source: Source
    tell: Callable[[Event], object]
    flags: Sequence[str] = ()
    cells: list[Cell] = field(default_factory=list)
    """Those that came from the source, in their order."""
    _failed: list[tuple[Cell, str]] = field(default_factory=list)
    _running: list[_Child] = field(default_factory=list)
    _waiting: list[Cell] = field(default_factory=list)
    _all_taken: bool = False
    _warned: set[str] = field(default_factory=set)
    _number: int = 0
    _done: int = 0

    def run(self) -> None:
        """Trains everything that is missing.

        Raises:
            RunError: some runs failed, each with the reason; or the sweep is at work already.
            StoppedError: a signal came; what ran has saved.
        """
        folder = self.plan.folder
        try:
            with locked(folder), self._signals():
                (folder / LOGS).mkdir(exist_ok=True)
                self._book = Book(self.plan)
                self._book.note("waiting", *(cell for cell in self.plan.cells if not cell.finished))
                try:
                    self._loop()
                finally:  # nobody else would wait for them
                    self._end()
        except BusyError as error:
            who = error.problems[0].message.rpartition(" by ")[2]
            raise RunError(f"the sweep `{folder}` is at work already, in {who}", hint="wait for it, or end it") from None
        if self._number:
            message = f"the sweep was stopped by {signal.Signals(self._number).name}; every run has saved"
            raise StoppedError(message, exit_code(self._number), hint="the same command continues")
        if self._failed:
            problems = [Problem(f"`{cell.title}` failed: {why}", hint=f"its log is `{self._log(cell)}`") for cell, why in self._failed]
            rest = len(problems) - _MOST
            more = [Problem(f"{rest} more runs failed", hint=f"`{folder / 'sweep.json'}` names them")] if rest > 0 else []
            raise RunError([*problems[:_MOST], *more])

    def _loop(self) -> None:
        while True:
            while len(self._running) < self.plan.sweep.jobs and not self._number and (cell := self._startable()) is not None:
                self._start(cell)
            for child in [child for child in self._running if child.process.poll() is not None]:
                self._running.remove(child)
                self._ended(child)
            if not self._running and (self._number or (self._all_taken and not self._waiting)):
                return
            time.sleep(_LOOK)

    def _end(self) -> None:
        """Asks what still runs, after an error of ours, to save and end."""
        if self._running:
            self._pass_on(signal.SIGTERM, None)
        for child in self._running:
            child.process.wait()

    def _take(self) -> Cell | None:
        """The next run that is not finished."""
        while (cell := self.source.next()) is not None:
            self.cells.append(cell)
            if not cell.finished:
                return cell
            self._finish(cell, told=False)
        self._all_taken = True
        return None

    def _startable(self) -> Cell | None:
        """A run that nobody trains; one that waited for its end may be finished now."""
        for cell in list(self._waiting):
            if not self._busy(cell):
                self._waiting.remove(cell)
                if not cell.finished:
                    return cell
                self._finish(cell)
        while (new := self._take()) is not None:
            if not self._busy(new):
                return new
            self._waiting.append(new)
            if not any(child.cell.path == new.path for child in self._running):
                self.tell(Event("elsewhere", new, self._done))
        return None

    def _busy(self, cell: Cell) -> bool:
        return any(child.cell.path == cell.path for child in self._running) or held(cell.path)

    def _start(self, cell: Cell) -> None:
        log = self._log(cell)
        begun = (cell.path / "run.json").is_file()  # `train` has no change to accept where nothing has begun
        command, *arguments = (cell.request if begun else replace(cell.request, accept_change=False)).arguments()
        self._book.note("running", cell)
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "distillctl", command, *self.flags, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=self._environment(),
                start_new_session=True,  # Ctrl-C reaches it through us alone: a second signal would end it before it has saved
            )
            child = _Child(cell, process, log, file.tell())
        self._running.append(child)
        if self._number:
            _send(child, self._number)
        self.tell(Event("begins", cell, self._done))

    def _environment(self) -> dict[str, str]:
        """That of a run: cores are shared out, lines of its log are not cut to a terminal's width, and it ends when we are gone."""
        cores = usable_cores()
        made = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        if self.plan.sweep.jobs > 1:
            made.setdefault("OMP_NUM_THREADS", str(max(1, cores // self.plan.sweep.jobs)))
        return made | {heartbeat.STARTER: str(os.getpid())}

    def _ended(self, child: _Child) -> None:
        cell, code = child.cell, child.process.returncode
        lines = _lines(child)
        for line in lines:
            kind, _, text = line.partition(": ")
            if kind.lower() == "warning" and (alike := _NUMBER.sub("#", text)) not in self._warned:
                self._warned.add(alike)
                self.tell(Event("warning", cell, self._done, text))
        if code == 0 and cell.finished:
            self._finish(cell)
        elif self._number and (code in _STOPPED or code < 0):
            self._book.note("stopped", cell)
            self.tell(Event("stopped", cell, self._done))
        else:
            why = _reason(code, lines)
            self._failed.append((cell, why))
            self._book.note("failed", cell, error=why)
            self._done += 1
            self.tell(Event("failed", cell, self._done, why))
            self.source.done(cell, False)

    def _finish(self, cell: Cell, told: bool = True) -> None:
        """told: it was finished by this sweep, or while it waited."""
        self._book.note("finished", cell)
        self._done += 1
        if told:
            self.tell(Event("finished", cell, self._done))
        self.source.done(cell, True)

    def _log(self, cell: Cell) -> Path:
        return self.plan.folder / LOGS / f"{cell.path.name}.log"

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Within, signals are passed on to the runs, which save and end; nothing new begins."""
        if threading.current_thread() is not threading.main_thread():  # others are not told of signals
            yield
            return
        before = {number: signal.signal(number, self._pass_on) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self._number = self._number or number
        for child in self._running:
            _send(child, number)


def _send(child: _Child, number: int) -> None:
    with suppress(OSError, ValueError):  # it has ended; Windows knows few signals
        child.process.send_signal(number)


def _lines(child: _Child) -> list[str]:
    """What it has written."""
    with child.log.open("rb") as file:
        file.seek(max(child.begin, child.log.stat().st_size - _MOST_BYTES))
        return file.read().decode(errors="replace").strip().splitlines()


def _reason(code: int, lines: Sequence[str]) -> str:
    """Why a run failed: its error, or how it ended."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}{', perhaps since memory ran out' if code == -signal.SIGKILL else ''}"
    if code in _STOPPED:
        return "stopped by a signal from elsewhere; the same command continues it"
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    last = errors[0] if errors else lines[-1].strip() if lines else ""
    return last or f"it ended with exit code {code}"
