"""What runs on the cluster: the launcher with `distillctl train` as its processes, and what submitit asks of a job that may be requeued.

The training has its own processes, so that its exit codes are those of the command line and the signals of the batch system are ours
to pass on, each once: a second one would end it before it has saved.

    USR2 (submitit's signal: the time limit is near, or a preemption)  the training saves and ends, the job is requeued
    TERM (a preemption or a cancellation; SLURM knows which)           the training saves and ends, the job waits for what SLURM does
    KILL                                                               the training sees that the job is gone, and saves
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from distillctl.errors import MachineError, RunError
from distillctl.plugin.registry import Registry
from distillctl.slurm.request import Request

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

    from distillctl.distributed.launcher import Launcher

STOPPED = (130, 143)
_LAST_LINES = 30


@dataclass
class TrainingJob:
    """The function of a job.

    folder: where the relative paths of the request begin.
    grace: seconds for the training to save, before the batch system ends everything.
    patience: seconds for which a job that was asked to terminate waits for being requeued or killed.
    """

    request: Request
    folder: Path
    grace: float
    patience: float
    _launcher: Launcher | None = field(default=None, init=False, repr=False)

    def __call__(self) -> None:
        """Trains to the end, on one node.

        Raises:
            DistillError: the training failed, or cannot begin.
        """
        from submitit import JobEnvironment

        early: list[int] = []
        before = signal.signal(signal.SIGTERM, lambda number, _: early.append(number))
        try:
            from distillctl.distributed.launcher import launcher  # takes seconds

            say = partial(print, file=sys.stderr, flush=True)  # the log of the job
            with launcher(self.request.nproc, self.request.arguments(), say, [signal.SIGTERM]) as self._launcher:
                if early:
                    self._launcher.stop()
                enter(self.folder)
                self.request.check_unchanged(Registry.load())
                log = JobEnvironment().paths.stderr
                begin = log.stat().st_size if log.exists() else 0
                code = self._launcher.launch()
                asked = bool(self._launcher.number)
                if asked and code in STOPPED:
                    time.sleep(self.patience)  # SLURM kills, or its second signal requeues
        finally:
            signal.signal(signal.SIGTERM, before)
        if code:
            raise failure(code, asked, last_lines(log, begin))

    def checkpoint(self) -> DelayedSubmission:
        """Asks the training to save; submitit calls this when the job's time is over, and requeues what it returns.

        Raises:
            RunError: the training has failed already, so that it would fail again.
        """
        from submitit.core.utils import DelayedSubmission

        if self._launcher is not None:
            if not self._launcher.number:
                self._launcher.stop()
            if decided := self._launcher.end(self.grace):  # else the last checkpoint is all there is, and continues as well
                raise failure(decided, True, "")
        return DelayedSubmission(replace(self))


def enter(folder: Path) -> None:
    """Makes a folder the current one.

    Raises:
        MachineError: it is not there.
    """
    try:
        os.chdir(folder)
    except OSError as error:
        raise MachineError(
            f"`{folder}` cannot be entered on `{socket.gethostname()}`: {(error.strerror or str(error)).lower()}",
            hint="the folder in which a job is launched must be on a file system that the nodes share",
        ) from error


def failure(code: int, asked: bool, log: str) -> RunError:
    """Why the job fails. log: the end of what the training wrote to stderr."""
    if asked and code in STOPPED:
        return RunError("the job was asked to terminate", hint="launched again, it continues from where it has saved")
    message = f"the training ended with exit code {code}"
    return RunError(message, hint=f"the end of its log:\n{log}" if log else "its log says why")


def last_lines(log: Path, begin: int) -> str:
    """The last lines of what was written to a file from a position on."""
    try:
        with log.open("rb") as file:
            file.seek(max(begin, log.stat().st_size - 10_000))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-_LAST_LINES:])
