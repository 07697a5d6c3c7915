"""When a run saves in the middle of an epoch, and when a signal ends it: the same step in all processes.

A signal is noted; the step is finished and saved first, and a second signal ends the process at once. One process looks at its
clock and its signals after every step. Several agree on both about four times a second: an exchange at every step would cost more.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any, NamedTuple

from distillctl.distributed.process_group import ProcessGroup
from distillctl.distributed.stop_signals import SIGNALS, exit_code

_AGREE_EVERY = 0.25  # seconds
_MOST_STEPS = 1000
_SAME = 1.0  # seconds in which the same signal is one: batch systems send it to every process of a job, and launchers pass it on


class Pause(NamedTuple):
    """What to do after a step. stop: number of the signal that ends the run, or 0."""

    save: bool = False
    stop: int = 0


_GO_ON = Pause()


class Interrupts:
    """Within this context signals are noted instead of ending the process.

    save_every: seconds between two checkpoints.
    """

    def __init__(self, processes: ProcessGroup, save_every: float) -> None:
        self._processes = processes
        self._save_every = save_every
        self._number = 0
        self._came = 0.0
        self._told = False
        self._before: dict[int, Any] = {}
        self._saved = self._agreed = time.monotonic()
        self._steps = self._until = 1

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # others are not told of signals
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        if self._number and not self._told:  # it came when all steps were done
            signal.raise_signal(self._number)

    @property
    def stopped_alone(self) -> int:
        """The signal that came, where nobody else has to be asked; otherwise 0."""
        return self._tell(self._number) if self._processes.count == 1 else 0

    def saved(self) -> None:
        """A checkpoint was written just now."""
        self._saved = time.monotonic()

    def stopping(self) -> int:
        """The signal on which all agree now; 0 if there is none."""
        return self._tell(self._processes.all_reduce_max(self._number)[0])

    def after_step(self) -> Pause:
        """What to do after the step that was just taken."""
        now = time.monotonic()
        due = now - self._saved >= self._save_every
        if self._processes.count == 1:
            return Pause(due, self._tell(self._number)) if due or self._number else _GO_ON
        self._until -= 1
        if self._until > 0:
            return _GO_ON
        each = (now - self._agreed) / self._steps
        wanted = max(1, min(_MOST_STEPS, round(_AGREE_EVERY / max(each, 1e-6))))
        first = self._processes.first
        stop, save, steps = self._processes.all_reduce_max(self._number, int(due and first), wanted if first else 0)
        self._steps = self._until = steps
        self._agreed = time.monotonic()
        return Pause(bool(save), self._tell(stop))

    def _tell(self, number: int) -> int:
        self._told = self._told or bool(number)
        return number

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self._number:
            self._number, self._came = int(number), time.monotonic()
        elif number != self._number or time.monotonic() - self._came >= _SAME:
            if sys.stdout is not None and sys.stdout.isatty():
                os.write(sys.stdout.fileno(), b"\x1b[?25h")  # a live display has hidden the cursor
            os._exit(exit_code(number))
