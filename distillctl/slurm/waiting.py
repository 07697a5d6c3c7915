"""Hearing how jobs end."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from distillctl.errors import Problem, RunError
from distillctl.slurm.submission import Submitted

_ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT")


def wait(jobs: Sequence[Submitted], *, every: float = 30) -> None:
    """Waits until all jobs have ended, requeued ones included.

    Args:
        jobs: of `submit`.
        every: seconds between two questions to SLURM; the file with the result is looked for at least every second.

    Raises:
        RunError: with the reason of every job that failed.
    """
    pending, asked = list(jobs), time.monotonic()
    said_ended: set[str] = set()
    problems: list[Problem] = []
    while pending:
        ask = time.monotonic() - asked >= every
        asked = time.monotonic() if ask else asked
        for job in tuple(pending):
            if job.local:
                ended, state = job.handle.state != "RUNNING", "its process is gone"
            elif job.handle.paths.result_pickle.exists():
                ended, state = True, ""
            elif ask and (state := slurm_state(job.id)) in _ENDED:
                # Asked twice: a preempted job may be on its way to the queue, and a shared file system shows results late.
                ended = job.id in said_ended
                said_ended.add(job.id)
            else:
                ended, state = False, ""
            if ended:
                pending.remove(job)
                problems += _outcome(job, state)
        if pending:
            time.sleep(min(1.0, every))
    if problems:
        raise RunError(problems)


def slurm_state(job: str) -> str:
    """The state of a job as `squeue` says it; COMPLETED if SLURM has forgotten the job, empty if it does not answer."""
    command = ["squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        return "COMPLETED" if "Invalid job id" in answer.stderr else ""
    return answer.stdout.strip() or "COMPLETED"


def queued(job: str) -> bool:
    """Whether a job waits or runs."""
    return slurm_state(job) not in (*_ENDED, "")


def _outcome(job: Submitted, state: str) -> list[Problem]:
    where = f"job {job.id}"
    if not job.handle.paths.result_pickle.exists():
        return [Problem(f"the job has left no result ({state.lower()})", where, f"its logs are `{job.logs[0]}` and `{job.logs[1]}`")]
    error = job.handle.exception()
    return [] if error is None else [_reason(str(error), where, job.logs[1])]


def _reason(trace: str, where: str, log: Path) -> Problem:
    """What a job has raised: submitit keeps the text of the traceback, which ends with our own error."""
    _, found, last = trace.rpartition("\ndistillctl.errors.")
    if not found:
        return Problem("the job failed by a bug, or in a broken environment", where, f"the traceback is in `{log}`")
    text = last.partition(": error: ")[2].partition("\n-----")[0].strip()
    message, _, hint = text.partition("\n\nhint: ")
    return Problem(message, where, hint)
