"""`train --nproc N`: starts N processes of the same command, and starts all of them again when one dies or falls silent.

What a run has done is in its checkpoints, so that a new group goes on exactly. A group that fails by its own decision (a wrong
profile, a loss that is not finite: exit codes 1, 2, 3) is not started again, and neither is one that dies three times at one step.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from distillctl.distributed import heartbeat
from distillctl.distributed.stop_signals import SIGNALS, exit_code
from distillctl.errors import LostProcessError, RunError

_AWAY = 2.0  # seconds between two looks that tell that the supervisor itself stood still
_OWN_DECISION = (1, 2, 3)
_STOPPED = (130, 143)
_MOST_DEATHS = 3  # at one step
_LONGEST_PAUSE = 30.0


ONCE = "--from-previous"
"""An option that is given to the first start only: a second time it would go back further."""


def supervise(count: int, arguments: Sequence[str], say: Callable[[str], object]) -> int:
    """Runs `distillctl` with these arguments in so many processes until they are done; gives their exit code.

    arguments: without `--fresh`, which would begin another run at every start.
    say: is told what goes wrong.

    Raises:
        RunError: they died three times at the same step.
    """
    with tempfile.TemporaryDirectory(prefix="distillctl-") as folder, _Signals() as signals:
        deaths: Counter[int] = Counter()
        while True:
            group = _Group(count, arguments, Path(folder))
            signals.target = group
            if signals.number:  # it came before there was anybody to pass it on to
                group.send(signals.number)
            try:
                why = group.wait()
            finally:
                group.end()
            if text := group.last_words():
                say(text)
            if why is None or signals.number:
                return group.verdict(signals.code if signals.number else 0)
            step = group.steps
            deaths[step] += 1
            place = f"after step {step}" if step >= 0 else "before the first step"
            if deaths[step] == _MOST_DEATHS:
                raise RunError(
                    f"{why} {place}, for the {_MOST_DEATHS}rd time there", hint="the last checkpoint is kept; look at what is above"
                )
            arguments = [argument for argument in arguments if argument != ONCE]
            pause = min(_LONGEST_PAUSE, 2.0 ** (deaths.total() - 1))
            say(f"{why} {place}: all {count} processes start again from the last checkpoint in {pause:g} s")
            if signals.wait(pause):
                return signals.code


class _Group:
    """The processes of one command. What others than the first write to stderr is kept: most of it, all say alike."""

    def __init__(self, count: int, arguments: Sequence[str], folder: Path) -> None:
        self._signs = signs = folder / "pulse"
        self._kept = [folder / f"stderr-{rank}" for rank in range(count)]
        heartbeat.create(signs, count)
        meeting = folder / "meeting"
        meeting.unlink(missing_ok=True)
        environment = {
            **os.environ,
            heartbeat.VARIABLE: str(signs),
            heartbeat.PARENT: str(os.getpid()),
            "DISTILLCTL_MEETING": str(meeting),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
        }
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if sys.platform == "linux":
            environment.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a host's own name may lead nowhere
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // count)))
        self._processes = [self._start(rank, arguments, environment) for rank in range(count)]

    def _start(self, rank: int, arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with self._kept[rank].open("wb") as kept:
            return subprocess.Popen(
                [sys.executable, "-m", "distillctl", *arguments],
                env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stderr=kept if rank else None,
                start_new_session=True,  # Ctrl-C comes to the supervisor, which passes it on
            )

    @property
    def steps(self) -> int:
        """Steps of the run that were done; −1 if training had not begun."""
        return max(steps for _, steps in heartbeat.read(self._signs))

    def wait(self) -> str | None:
        """Until all are done, or one decides to end, or one is lost: then a sentence on that."""
        patience = heartbeat.patience()
        first_end = math.inf
        looked = since = time.monotonic()
        while True:
            if time.monotonic() - looked > _AWAY:  # the whole job was suspended, and its clock with it
                since = time.monotonic()
            looked = time.monotonic()
            codes = self._codes()
            for rank, code in enumerate(codes):
                if code is not None and code < 0:
                    more = ", perhaps since memory ran out," if code == -signal.SIGKILL else ""
                    return f"process {rank} was killed by {signal.Signals(-code).name}{more}"
            if any(code in _OWN_DECISION for code in codes):
                self._wait_for_the_first()
                return None
            if None not in codes:
                lost = all(code == LostProcessError.exit_code for code in codes)
                return "all processes lost each other" if lost else None
            now = time.monotonic()
            if any(codes):  # the others notice it in their next exchange, but for one that waits to meet it
                first_end = min(first_end, now)
                if now - first_end > (patience if self.steps >= 0 else heartbeat.GRACE):
                    return "a process ended, and others did not follow it,"
            for rank, (sign, _) in enumerate(heartbeat.read(self._signs)):
                if codes[rank] is None and now - max(sign, since) > patience:
                    return f"process {rank} gave no sign of life for {patience:g} s"
            time.sleep(0.05)

    def _wait_for_the_first(self) -> None:
        """Where one decides to end, the first mostly does so too, and says why."""
        with suppress(subprocess.TimeoutExpired):
            self._processes[0].wait(timeout=heartbeat.GRACE)

    def verdict(self, signalled: int) -> int:
        """One exit code for all of them; `signalled` is what a signal to the supervisor asks for, or 0."""
        codes = [code for code in self._codes() if code]
        stopped = next((code for code in codes if code in _STOPPED), next(iter(codes), 0))
        return next((code for code in codes if code in _OWN_DECISION), signalled if codes and signalled else stopped)

    def last_words(self) -> str:
        """What a process wrote that decided to end, or crashed, if the first did not do so itself."""
        codes = self._codes()
        deciding = [rank for rank, code in enumerate(codes) if code in _OWN_DECISION]
        killed = [rank for rank, code in enumerate(codes) if code is not None and code < 0]
        rank = next(iter([*deciding, *killed]), 0)
        text = self._kept[rank].read_text(errors="replace").strip() if rank else ""
        return f"process {rank}: {text}" if text else ""

    def send(self, number: int) -> None:
        """Passes a signal on to all that still run."""
        for process in self._processes:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    process.send_signal(number)

    def end(self) -> None:
        """Ends all processes, those that stand still too. Those of a group that was stopped have had their time to save."""
        if None in self._codes():
            self.send(signal.SIGTERM)
            deadline = time.monotonic() + heartbeat.GRACE
            while time.monotonic() < deadline and None in self._codes():
                time.sleep(0.02)
        self.send(signal.SIGKILL)
        for process in self._processes:
            process.wait()

    def _codes(self) -> list[int | None]:
        return [process.poll() for process in self._processes]


class _Signals:
    """Passes signals on to the group, and remembers the first."""

    def __init__(self) -> None:
        self.target: _Group | None = None
        self.number = 0
        self._before: list[tuple[int, object]] = []

    @property
    def code(self) -> int:
        """The exit code that the signal asks for."""
        return exit_code(self.number)

    def __enter__(self) -> _Signals:
        self._before = [(n, signal.signal(n, self._pass_on)) for n in SIGNALS]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)  # type: ignore[arg-type]

    def wait(self, seconds: float) -> bool:
        """Waits so long; whether a signal came."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.number:
            time.sleep(0.05)
        return bool(self.number)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self.number = self.number or number
        if self.target is not None:
            self.target.send(number)
