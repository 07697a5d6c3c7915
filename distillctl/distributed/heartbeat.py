"""What a process owes the launcher that has started it on this machine: signs of life, silence, and an end when the launcher is gone."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

from distillctl.errors import MachineError

GROUP = "DISTILLCTL_GROUP"
"""Names the launcher's folder, in which each process of the group has a file whose time of change is its last sign of life."""
LAUNCHER = "DISTILLCTL_LAUNCHER"
"""The launcher's process number: it may be gone before a process of its group looks for it."""
STARTER = "DISTILLCTL_STARTER"
"""The process number of a sweep that has started this process, as one of many runs."""
PATIENCE = 45.0
"""Seconds for which processes wait for each other in the middle of training."""
GRACE = 5.0
"""Seconds for which a process waits until the first has said why all end, and which one without a launcher has to end."""
met = threading.Event()
"""Set when this process has met the others of its run. Before, it may wait where no signal is handled, and has nothing to save."""
_group: tuple[str, str] | None = None  # its folder, and this process's number in it


def supervised() -> bool:
    """Whether this process is one of a group on this machine that our launcher looks after."""
    return GROUP in os.environ


def restarts() -> int:
    """How often the launcher, ours or torchrun, has started this group again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def patience() -> float:
    """Seconds for which processes wait for each other: what `DISTILLCTL_PATIENCE` says, or `PATIENCE`.

    Raises:
        MachineError: it does not say a number.
    """
    text = os.environ.get("DISTILLCTL_PATIENCE", "")
    try:
        seconds = float(text or PATIENCE)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise MachineError(f"`DISTILLCTL_PATIENCE={text}` is not a number of seconds")
    return seconds


def sign(folder: str | Path, rank: int | str) -> Path:
    """The file of a process of a group."""
    return Path(folder, f"alive-{rank}")


def said(folder: str | Path, rank: int | str) -> Path:
    """What a process other than the first wrote to stderr: mostly what the first says too."""
    return Path(folder, f"stderr-{rank}")


def start() -> None:
    """Begins to give signs, if there is a launcher to give them to. A process whose launcher or sweep is gone stops as by SIGTERM."""
    global _group
    if not supervised() and (starter := os.environ.get(STARTER)) == str(os.getppid()):
        threading.Thread(target=_end_with, args=(int(starter),), daemon=True, name="starter").start()
    if supervised():
        _group = folder, rank = os.environ[GROUP], os.environ["LOCAL_RANK"]
        if rank != "0":
            with suppress(OSError), said(folder, rank).open("wb") as file:  # the folder goes with the launcher
                os.dup2(file.fileno(), 2)
        if hasattr(signal, "SIGUSR2"):
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # batch systems warn all processes of a job; the job answers
        threading.Thread(target=_beat, args=(sign(folder, rank), int(os.environ[LAUNCHER])), daemon=True, name="heartbeat").start()


def let_the_first_speak() -> None:
    """Waits, before a process ends with an error, until the first process has reported it: mostly all end with the same one."""
    if _group is None:
        return
    folder, rank = _group
    first = sign(folder, 0)
    if rank == "0":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # sent when others end earlier
        first.unlink(missing_ok=True)
        return
    deadline = time.monotonic() + GRACE
    while first.exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def _end_with(starter: int) -> None:
    while os.getppid() == starter:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def _beat(own: Path, launcher: int) -> None:
    while os.getppid() == launcher:
        with suppress(OSError):
            os.utime(own)
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    if not met.is_set():
        os._exit(143)
