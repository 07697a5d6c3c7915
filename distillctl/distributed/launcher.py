"""`train --nproc N` and the jobs of SLURM: torch's elastic agent runs N processes of one command, and all again if one is lost.

What a run has done is in its checkpoints, so that a new group goes on exactly. A group that fails by its own decision (a wrong
profile, a loss that is not finite: exit codes 1, 2, 3) is not started again.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from distillctl.distributed import heartbeat
from distillctl.distributed.cores import usable_cores
from distillctl.distributed.stop_signals import SIGNALS, exit_code
from distillctl.errors import LostProcessError, RunError

RESTARTS = 5
SILENCE = 25.0
"""Seconds without a sign of life after which a process is killed. The others then have half a minute to end."""
_AWAY = 2.0  # seconds between two looks that tell that the launcher itself stood still, and perhaps the whole job
_OWN_DECISION = {1, 2, 3}
_ASKING = {*SIGNALS, getattr(signal, "SIGUSR2", signal.SIGTERM)}
_AT_ONCE = 5  # seconds in which those end that are not victims of the end of the others: the agent kills after 30


class Launcher(LocalElasticAgent):
    """The agent of one group on one machine. Signals are passed on to the processes, which save; the agent waits for their ends."""

    def __init__(self, count: int, arguments: Sequence[str], say: Callable[[str], object], folder: Path) -> None:
        meeting = RendezvousParameters("c10d", str(folder / "agent"), "group", 1, 1, "localhost", store_type="file")
        spec = WorkerSpec(
            role="train",
            local_world_size=count,
            entrypoint=sys.executable,
            args=("-m", "distillctl", *(argument.replace("$", "$$") for argument in arguments)),  # the agent fills in `${local_rank}`
            rdzv_handler=get_rendezvous_handler(meeting),
            max_restarts=RESTARTS,
            monitor_interval=0.1,
        )
        super().__init__(spec, DefaultLogsSpecs(str(folder)))
        self.number = 0  # the first signal that came
        self._folder, self._say = folder, say
        self._heard: dict[int, tuple[int, float]] = {}  # by rank: when its file was changed, and when that was seen
        self._silent: dict[int, str] = {}
        self._looked = time.monotonic()

    def launch(self) -> int:
        """Runs the processes until they are done; returns one exit code for all of them.

        Raises:
            RunError: processes were lost too often.
        """
        if self.number:
            return exit_code(self.number)
        result: RunResult = self.run()
        if not self.number and (why := self._loss(result)):
            raise RunError(f"{why}, for the {RESTARTS + 1}th time", hint="the last checkpoint is kept; look at what is above")
        codes: list[int] = [failure.exitcode for _, failure in sorted(result.failures.items())]
        if decided := [code for code in codes if code in _OWN_DECISION]:
            return decided[0]
        if self.number:
            return exit_code(self.number) if codes else 0
        return exit_code(signal.SIGINT if 130 in codes else signal.SIGTERM) if codes else 0

    def stop(self, number: int = signal.SIGTERM, _frame: FrameType | None = None) -> None:
        """Passes a signal on to all processes, those that are yet to start included."""
        self.number = self.number or number
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self, seconds: float) -> int:
        """Waits until all processes have ended, and kills them after `seconds`; returns the exit code of one that decided to fail, or 0.

        For handlers of signals: the agent stands still meanwhile, and still finds the codes of those that end.
        """
        deadline, decided = time.monotonic() + seconds, 0
        for pid in self.processes():
            with suppress(ChildProcessError):  # the agent has its code
                while (state := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is None:
                    if time.monotonic() > deadline:
                        os.kill(pid, signal.SIGKILL)
                    time.sleep(0.05)
                if state.si_code == os.CLD_EXITED and state.si_status in _OWN_DECISION:
                    decided = state.si_status
        return decided

    def close(self) -> None:
        """Ends the agent's thread that says it is alive, before the folder goes where it says so."""
        self._worker_group.spec.rdzv_handler.shutdown()

    def processes(self) -> list[int]:
        """The numbers of the processes that were started last."""
        return list(self._pcontext.pids().values()) if self._pcontext is not None else []

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, int]:
        for rank in range(worker_group.spec.local_world_size):
            heartbeat.sign(self._folder, rank).touch()
            heartbeat.said(self._folder, rank).write_bytes(b"")
        self._heard = {}
        self._silent = {}
        ids: dict[int, int] = super()._start_workers(worker_group)
        if self.number:
            self.stop(self.number)
        return ids

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        self._kill_the_silent()
        result: RunResult = super()._monitor_workers(worker_group)
        if result.is_failed():
            why = self._loss(result)
            if text := self._last_words(result):
                self._say(text)
            if self.number or not why:
                self._remaining_restarts = 0
            elif self._remaining_restarts:
                self._say(f"{why}: all start again from the last checkpoint")
        return result

    def _kill_the_silent(self) -> None:
        limit = min(SILENCE, heartbeat.patience())
        now = time.monotonic()
        if now - self._looked > _AWAY:
            self._heard = {}
        self._looked = now
        for rank, pid in enumerate(self.processes()):
            with suppress(FileNotFoundError, ProcessLookupError):  # the file goes when the first process is about to end
                changed = heartbeat.sign(self._folder, rank).stat().st_mtime_ns
                last, heard = self._heard.setdefault(rank, (changed, now))
                if changed != last:
                    self._heard[rank] = changed, now
                elif now - heard > limit:
                    os.kill(pid, signal.SIGKILL)
                    self._silent[rank] = f"process {rank} gave no sign of life for {limit:g} s"

    def _loss(self, result: RunResult) -> str:
        """A sentence on who was lost; empty if they ended by their own decision, or since they were asked to."""
        first = min((failure.timestamp for failure in result.failures.values()), default=0)
        for rank, failure in sorted(result.failures.items()):
            code = failure.exitcode
            if code < 0 and -code not in _ASKING and failure.timestamp <= first + _AT_ONCE:
                more = ", perhaps since memory ran out" if code == -signal.SIGKILL else ""
                return self._silent.get(rank) or f"process {rank} was killed by {signal.Signals(-code).name}{more}"
        codes = {failure.exitcode for failure in result.failures.values()}
        return "the processes lost each other" if LostProcessError.exit_code in codes and not codes & _OWN_DECISION else ""

    def _last_words(self, result: RunResult) -> str:
        """What a process wrote that decided to end, or crashed, if the first did not do so itself."""
        codes = {rank: failure.exitcode for rank, failure in sorted(result.failures.items())}
        deciding = [rank for rank, code in codes.items() if code in _OWN_DECISION]
        killed = [rank for rank, code in codes.items() if code < 0]
        rank = next(iter([*deciding, *killed]), 0)
        text = heartbeat.said(self._folder, rank).read_text(errors="replace").strip()  # of the first it is empty
        return f"process {rank}: {text}" if text else ""


@contextmanager
def launcher(count: int, arguments: Sequence[str], say: Callable[[str], object], signals: Sequence[int] = SIGNALS) -> Iterator[Launcher]:
    """For `distillctl` with these arguments in `count` processes; within, processes that are started know to which group they belong.

    arguments: without `--fresh`, which would begin another run at every start.
    say: is told what goes wrong.
    signals: those that are passed on to the processes, which save and end.
    """
    elastic = logging.getLogger("torch.distributed.elastic")
    elastic.propagate = False  # it reports what is said here in other words
    elastic.addHandler(logging.NullHandler())
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="distillctl-") as folder:
        cores = usable_cores()
        os.environ |= {heartbeat.GROUP: folder, heartbeat.LAUNCHER: str(os.getpid()), "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGQUIT"}
        if sys.platform == "linux":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a host's own name may lead nowhere
        if count > 1:
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // count)))
        made = Launcher(count, arguments, say, Path(folder))
        handlers = [(number, signal.signal(number, made.stop)) for number in signals]
        try:
            yield made
        finally:
            made.close()
            for number, handler in handlers:
                signal.signal(number, handler)
            os.environ.clear()
            os.environ.update(before)
