"""Runs in processes of their own, which a test kills and starts again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_TIMEOUT = 300.0


def start(folder: Path, out: str, *more: str) -> subprocess.Popen[bytes]:
    """`distillctl train profile.toml` in this folder, into its run directory `out`, on the CPU with one thread.

    more: further arguments.
    """
    command = [sys.executable, "-m", "distillctl", "train", "profile.toml", "--out", out, "--device", "cpu", "--quiet", *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Waits for its end, which has to be a good one."""
    _, errors = process.communicate(timeout=_TIMEOUT)
    assert process.returncode == 0, errors.decode()


def kill_at(process: subprocess.Popen[bytes], run: Path, epoch: int) -> int:
    """Kills the process as soon as the run says that so many epochs are done; returns how many were."""
    deadline = time.monotonic() + _TIMEOUT
    while time.monotonic() < deadline:
        try:
            done = int(json.loads((run / "run.json").read_text())["epoch"])
        except (FileNotFoundError, ValueError):
            done = 0
        if done >= epoch:
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=30)
            return done
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.002)
    raise AssertionError("the run did not come so far in time")


__all__ = ["finish", "kill_at", "start"]
