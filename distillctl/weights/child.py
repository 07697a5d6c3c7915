"""The process in which a torch file is opened. It is started by `process`, and ends after one file.

Its limits are set when torch is imported and before the file is touched: what importing costs differs from machine to machine, what
a file may cost does not.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path

from distillctl.errors import DataError
from distillctl.weights.torch_files import UnwritableError, convert

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>


def main(text: str) -> None:
    """Does one job and tells on standard output, as JSON, how it went.

    text: JSON with `source`, `target`, `shown_as` (paths), `memory` and `written` (bytes), `seconds` (of the processor), `parent`
        (the process that waits for the answer).
    """
    job = json.loads(text)
    _end_with(job["parent"])
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    _limit(job["memory"], job["written"], job["seconds"])
    try:
        convert(Path(job["source"]), Path(job["target"]), Path(job["shown_as"]), job["memory"])
        answer = {}
    except DataError as error:
        answer = {"message": error.problems[0].message, "hint": error.problems[0].hint}
    except UnwritableError as error:
        answer = {"unwritable": str(error)[:500]}
    os.write(answers, json.dumps(answer).encode())
    os._exit(0)  # torch takes a while to say goodbye


def _end_with(parent: int) -> None:
    """This process is killed when its parent is gone, of which nobody tells it otherwise."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # gone before that
        os._exit(1)


def _limit(memory: int, written: int, seconds: int) -> None:
    """Lets this process have `memory` bytes and `seconds` more than it has used, write files of `written` bytes, start nothing."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    # A second later, since at the hard limit the process would be killed without saying of what.
    _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + 1 + seconds, slack=1)
    _lower(resource.RLIMIT_FSIZE, written)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NPROC, 0)
    if sys.platform == "linux":  # elsewhere nobody says how much address space is in use
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        _lower(resource.RLIMIT_AS, pages * resource.getpagesize() + memory)


def _lower(what: int, limit: int, slack: int = 0) -> None:
    """Sets a limit for good, its hard form `slack` above it; one that is lower already stays."""
    soft, hard = (sys.maxsize if old == resource.RLIM_INFINITY else old for old in resource.getrlimit(what))
    resource.setrlimit(what, (min(limit, soft, hard), min(limit + slack, hard)))
