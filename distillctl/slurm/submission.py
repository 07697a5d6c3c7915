"""Handing jobs to SLURM, or to a rehearsal of it on this machine."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillctl.distributed import heartbeat
from distillctl.errors import MachineError, PluginError, ProfileError
from distillctl.slurm.job import TrainingJob
from distillctl.slurm.parameters import WHERE, Resources
from distillctl.slurm.request import Request
from distillctl.text import one_line

if TYPE_CHECKING:
    from submitit import Job

LOGS = Path("runs/jobs")
_SIGNAL_DELAY = 120  # seconds from the signal to the limit: a large model on a slow file system saves in less
_REQUEUE = 20  # of these, what submitit needs to requeue
_PATIENCE = 1800  # longer than the grace that clusters give to preempted jobs
_YEAR = 525_600  # minutes
_LAUNCHER = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", heartbeat.GROUP, heartbeat.LAUNCHER}


@dataclass(frozen=True)
class Submitted:
    """A job that was handed over.

    id: the batch system's; of a rehearsal, the process's.
    logs: its stdout and stderr.
    cancel: the command that ends it.
    """

    id: str
    logs: tuple[Path, Path]
    cancel: str
    handle: Job[None]
    local: bool


def require(local: bool) -> None:
    """Checks that jobs can be submitted from here.

    Raises:
        PluginError: submitit is not installed.
        MachineError: there is no SLURM.
    """
    if find_spec("submitit") is None:
        raise PluginError("`launch` needs `submitit`, which is not installed", hint="`pip install 'distillctl[slurm]'`")
    if sys.platform != "linux":
        raise MachineError("`launch` works on Linux only", hint="`distillctl train` trains here")
    if not local and not (shutil.which("sbatch") and shutil.which("srun")):
        raise MachineError(
            "no `sbatch` and `srun` were found: this is not a machine of a SLURM cluster", hint="`--local` runs the job on this machine"
        )


def submit(request: Request, name: str, resources: Resources, *, logs: Path = LOGS, local: bool = False, timeouts: int = 20) -> Submitted:
    """Submits one training.

    Args:
        request: what it trains, with the digest of its profile.
        name: of the job.
        resources: what it asks for; a rehearsal has their time limit and GPUs.
        logs: a folder, on a file system that the nodes share. It is made for this user alone, since results in it are unpickled.
        local: run it on this machine, as a process that outlives this one.
        timeouts: how many times it goes on after its time limit. Preemptions do not count.

    Raises:
        ProfileError: there is no time limit, or a name cannot stand in a script of SLURM.
        MachineError: the folder cannot be made or is open to others, or the batch system refuses the job.
    """
    minutes, delay = _limits(name, resources, logs, local)
    job = _job(request, delay, patience=0 if local else _PATIENCE)
    if local:
        handle = _rehearse(job, logs, minutes, delay, resources.gpus or 0, timeouts)
        cancel = f"kill {handle.job_id}"
    else:
        (handle,) = _send([job], logs, name, minutes, delay, resources.parameters, timeouts)
        cancel = f"scancel {handle.job_id}"
    return Submitted(handle.job_id, (handle.paths.stdout, handle.paths.stderr), cancel, handle, local)


def submit_array(
    requests: Sequence[Request], name: str, resources: Resources, *, at_once: int | None = None, logs: Path = LOGS, timeouts: int = 20
) -> list[Submitted]:
    """Submits trainings as the jobs of one array.

    Args:
        requests: what they train, each with the digest of its profile.
        name: of the array.
        resources: what each of them asks for.
        at_once: how many may run at once; None for as many as there is room for.
        logs: as for `submit`.
        timeouts: how many times each goes on after its time limit.

    Raises:
        ProfileError, MachineError: as `submit`.
    """
    minutes, delay = _limits(name, resources, logs, local=False)
    jobs = [_job(request, delay, patience=_PATIENCE) for request in requests]
    parameters = {**resources.parameters, "array_parallelism": at_once or len(jobs)}
    handles = _send(jobs, logs, name, minutes, delay, parameters, timeouts)
    return [Submitted(h.job_id, (h.paths.stdout, h.paths.stderr), f"scancel {h.job_id}", h, False) for h in handles]


def _limits(name: str, resources: Resources, logs: Path, local: bool) -> tuple[int, int]:
    """The time limit in minutes, and the seconds before it at which a training is asked to save; names and the folder are checked."""
    _check_names(name, logs)
    if resources.minutes is None and not local:
        raise ProfileError(
            "the job has no time limit", where=WHERE, hint="`--slurm time=240` gives it four hours; after them it is requeued and goes on"
        )
    minutes = resources.minutes or _YEAR
    _make_private(logs)
    return minutes, resources.signal_delay or min(_SIGNAL_DELAY, 30 * minutes)


def _job(request: Request, delay: int, patience: int) -> TrainingJob:
    return TrainingJob(request, Path.cwd(), grace=max(delay - _REQUEUE, delay / 2), patience=patience)


def _check_names(name: str, logs: Path) -> None:
    """An end of a line in a name would begin a line of the script, which the shell would run.

    Raises:
        ProfileError: a name cannot be printed, or SLURM would replace a part of it.
    """
    for what, text, where in (
        ("the name of the job", name, "PROFILE"),
        ("the folder of the logs", str(logs.absolute()), "--logs"),
        ("the current folder", str(Path.cwd()), ""),
    ):
        if not text.isprintable():
            raise ProfileError(
                f"{what}, `{one_line(text)}`, has characters that cannot be printed", where=where, hint="give it another name"
            )
    if "%" in str(logs.absolute()):
        raise ProfileError(f"the folder `{logs.absolute()}` has a `%` in its name, which SLURM replaces", where="--logs")


def _make_private(logs: Path) -> None:
    """Makes the folder of the logs, or checks the one that is there: who can write to it could run code here and in the job.

    Raises:
        MachineError: it cannot be made, belongs to another user, or others may write to it.
    """
    try:
        logs.parent.mkdir(parents=True, exist_ok=True)
        logs.mkdir(mode=0o700, exist_ok=True)
        state = logs.stat()
    except OSError as error:
        raise MachineError(f"the folder `{logs}` cannot be made: {(error.strerror or str(error)).lower()}") from error
    if state.st_uid != os.geteuid():
        raise MachineError(f"the folder `{logs}` belongs to another user, who could put code into it", hint="`--logs` names another folder")
    if state.st_mode & 0o022:
        raise MachineError(
            f"the folder `{logs}` may be written to by other users, who could put code into it",
            hint=f"`chmod go-w {shlex.quote(str(logs))}`, or name another folder with `--logs`",
        )


def _send(
    jobs: Sequence[TrainingJob], logs: Path, name: str, minutes: int, delay: int, parameters: dict[str, Any], timeouts: int
) -> list[Job[None]]:
    """Submits jobs, several as one array."""
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    # Where a cluster requeues no job by itself, this one may be.
    more = {"requeue": True, **parameters.get("additional_parameters", {})}
    executor = SlurmExecutor(logs, max_num_timeout=timeouts)
    executor.update_parameters(
        **{"job_name": name, "ntasks_per_node": 1, **parameters, "time": minutes, "signal_delay_s": delay, "additional_parameters": more}
    )
    try:
        # What sbatch says is told once, below; submitit prints it too.
        with _own_environment(), redirect_stderr(StringIO()), executor.batch():
            return [executor.submit(job) for job in jobs]
    except (FailedJobError, FailedSubmissionError) as error:
        raise MachineError(f"SLURM refuses the job: {' '.join(str(error).split())}") from error


def _rehearse(job: TrainingJob, logs: Path, minutes: int, delay: int, gpus: int, timeouts: int) -> Job[None]:
    from submitit import LocalExecutor

    executor = LocalExecutor(logs, max_num_timeout=timeouts)
    executor.update_parameters(timeout_min=minutes, signal_delay_s=delay, gpus_per_node=gpus, visible_gpus=_visible(gpus))
    with _own_environment(), _detached():
        return executor.submit(job)


def _visible(gpus: int) -> tuple[int, ...]:
    """The first of the GPUs that this process may use, in the machine's numbers; empty means that they count from 0.

    Raises:
        MachineError: there are fewer.
    """
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    numbers = [part.strip() for part in allowed.split(",")]
    if not gpus or not all(number.isdecimal() for number in numbers):
        return ()
    if len(numbers) < gpus:
        raise MachineError(f"the job asks for {gpus} GPUs, and CUDA_VISIBLE_DEVICES is `{allowed}`")
    return tuple(int(number) for number in numbers)


@contextmanager
def _own_environment() -> Iterator[None]:
    """A job that is submitted from within another one inherits nothing of that one."""
    inside = "SLURM_JOB_ID" in os.environ
    foreign = [
        name
        for name in os.environ
        if name in _LAUNCHER
        or name.startswith("TORCHELASTIC_")
        or (name.startswith("SUBMITIT_") and name != "SUBMITIT_PREEMPT_SIGNAL")
        or (inside and name.startswith(("SLURM_", "SLURMD_", "SRUN_")) and name != "SLURM_CONF")
    ]
    before = {name: os.environ.pop(name) for name in foreign}
    try:
        yield
    finally:
        os.environ.update(before)


@contextmanager
def _detached() -> Iterator[None]:
    """What is started within outlives this command: Ctrl-C and the end of the terminal do not reach it.

    It has neither stdout nor stderr of ours: whoever reads them would wait for the end of the job.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    kept = {number: os.dup(number) for number in (1, 2)}
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        for number in kept:
            os.dup2(nothing, number)
        yield
    finally:
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)
        os.close(nothing)
        for signal_number, handler in before.items():
            signal.signal(signal_number, handler)
