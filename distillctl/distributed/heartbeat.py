"""Signs of life: the processes of a group tell their supervisor that they live, and how many steps of the run are done."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import threading
import time
from pathlib import Path

from distillctl.errors import MachineError

VARIABLE = "DISTILLCTL_PULSE"
"""Names the file in which each process of a group has a slot."""
PARENT = "DISTILLCTL_SUPERVISOR"
"""The supervisor's process number: it may be gone before a process of its group looks for it."""
_SLOT = struct.Struct("<dq")
PATIENCE = 45.0
"""Seconds without a sign of life, or in which nothing comes from the others in the middle of training."""
GRACE = 5.0
"""Seconds from asking a process to end to ending it."""
_BEFORE = -1  # steps of a process that has not begun to train
_slot: tuple[mmap.mmap, int] | None = None
_steps = _BEFORE


def create(path: Path, count: int) -> None:
    """Makes the file for so many processes, all of which gave a sign just now."""
    path.write_bytes(_SLOT.pack(time.monotonic(), _BEFORE) * count)


def read(path: Path) -> list[tuple[float, int]]:
    """For each process the time of its last sign, on the monotonic clock of the machine, and the steps of the run that are done."""
    return [(sign, steps) for sign, steps in _SLOT.iter_unpack(path.read_bytes())]


def supervised() -> bool:
    """Whether this process is one of a group on this machine that a supervisor looks after."""
    return VARIABLE in os.environ


def patience() -> float:
    """Seconds for which processes wait for each other: what `DISTILLCTL_PATIENCE` says, or `PATIENCE`.

    Raises:
        MachineError: it says no number.
    """
    text = os.environ.get("DISTILLCTL_PATIENCE", "")
    try:
        seconds = float(text or PATIENCE)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise MachineError(f"`DISTILLCTL_PATIENCE={text}` is no number of seconds")
    return seconds


def start() -> None:
    """Begins to give signs, if there is a supervisor to give them to. A process whose supervisor is gone stops as by SIGTERM."""
    global _slot
    path = os.environ.get(VARIABLE)
    if not path or _slot is not None:
        return
    with open(path, "r+b") as file:
        _slot = mmap.mmap(file.fileno(), 0), int(os.environ.get("RANK", "0")) * _SLOT.size
    threading.Thread(target=_beat, args=(int(os.environ.get(PARENT, os.getppid())),), daemon=True, name="pulse").start()


def step(done: int) -> None:
    """Says how many steps of the run are done."""
    global _steps
    _steps = done
    _write()


def _beat(parent: int) -> None:
    while True:
        _write()
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(GRACE)
            if _steps == _BEFORE:  # it may wait for the others where no signal is handled, and has nothing to save
                os._exit(143)
            return
        time.sleep(1)


def _write() -> None:
    if _slot is not None:
        _SLOT.pack_into(_slot[0], _slot[1], time.monotonic(), _steps)
