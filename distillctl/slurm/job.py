"""What runs on the cluster: `distillctl train` as a child process, and what submitit asks of a job that may be requeued.

The child has its own process, so that its exit codes are those of the command line and the signals of the batch system are ours
to pass on, each once: a second one would end it before it has saved.

    USR2 (submitit's signal: the time limit is near, or a preemption)  the child saves and ends, the job is requeued
    TERM (a preemption or a cancellation; SLURM knows which)           the child saves and ends, the job waits for what SLURM does
    KILL                                                               the child is told by the kernel, and saves
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from distillctl.errors import MachineError, RunError
from distillctl.plugin.registry import Registry
from distillctl.slurm.request import Request

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

STOPPED = (130, 143, -signal.SIGTERM)
"""How a training ends that was asked to: saved, or not yet begun."""
_LAST_LINES = 30
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>


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
    _child: Child | None = field(default=None, init=False, repr=False)

    def __call__(self) -> None:
        """Trains to the end, on one node.

        Raises:
            DistillError: the training failed, or cannot begin.
        """
        from submitit import JobEnvironment

        self._child = child = Child([sys.executable, "-m", "distillctl", *self.request.arguments()])
        before = signal.signal(signal.SIGTERM, child.stop)
        try:
            enter(self.folder)
            self.request.check_unchanged(Registry.load())
            log = JobEnvironment().paths.stderr
            begin = log.stat().st_size if log.exists() else 0
            child.start()
            code = child.wait()
            if child.asked and code in STOPPED:
                time.sleep(self.patience)  # SLURM kills, or its second signal requeues
        finally:
            signal.signal(signal.SIGTERM, before)
        if code:
            raise failure(code, child.asked, last_lines(log, begin))

    def checkpoint(self) -> DelayedSubmission:
        """Asks the training to save; submitit calls this when the job's time is over, and requeues what it returns.

        Raises:
            RunError: the training has failed already, so that it would fail again.
        """
        from submitit.core.utils import DelayedSubmission

        if self._child is not None:
            self._child.stop()
            code = self._child.wait(self.grace)
            if code is None:  # the last checkpoint is all there is, and continues as well
                self._child.kill()
            elif code and code not in STOPPED:
                raise failure(code, True, "")
        return DelayedSubmission(replace(self))


class Child:
    """A process that may be asked to stop from within a signal handler, and is asked to when this process is killed.

    Nothing here holds a lock, for which a handler would wait for ever. There is no thread either: the kernel would tell the child
    of the end of every single one, and the second time it would end without saving.
    """

    def __init__(self, command: list[str]) -> None:
        self.asked = self._told = False
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, unless it was asked to stop already."""
        if not self.asked:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_preparation())
            if self.asked and not self._told:  # while it was started, when there was nobody to tell
                self._send(signal.SIGTERM)

    def wait(self, seconds: float = float("inf")) -> int | None:
        """The exit code, or the number of the signal that ended it below 0; None if it goes on after so many seconds."""
        deadline = time.monotonic() + seconds
        while (code := self._exit_code()) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return code

    def _exit_code(self) -> int | None:
        if self._process is None:
            return -signal.SIGTERM
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def stop(self, number: int = signal.SIGTERM, frame: FrameType | None = None) -> None:
        """Asks it to save and end, once."""
        if not self.asked:
            self.asked = True
            self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self._process is not None:
            self._told = True
            os.kill(self._process.pid, number)  # it stays known to the kernel after its end, since nobody asks for its code for good


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


def _preparation() -> Callable[[], None]:
    """What a child does before it becomes another program.

    It ignores signals that some batch systems send to every process of a job, and is asked to end when this process has gone.
    """
    control: Any = ctypes.CDLL(None).prctl

    def prepare() -> None:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        control(_SET_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)

    return prepare


def failure(code: int, asked: bool, log: str) -> RunError:
    """Why the job fails. log: the end of what the training wrote to stderr."""
    if asked and code in STOPPED:
        return RunError("the job was asked to terminate", hint="launched again, it continues from where it has saved")
    if code < 0:
        name = signal.Signals(-code).name
        why = "; the kernel does so when memory runs out" if code == -signal.SIGKILL else ""
        message = f"the training was ended by {name}, which nobody here has sent{why}"
    else:
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
