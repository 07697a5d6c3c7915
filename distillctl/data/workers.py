"""How many processes decode, and what each of them does first."""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from distillctl.data.batches import Workers
from distillctl.distributed.cores import usable_cores
from distillctl.distributed.stop_signals import SIGNALS
from distillctl.errors import MachineError, RunError

T = TypeVar("T")
_MOST = 16
_CHUNK = 16  # files in one task of a worker
# torch's words, of a worker that cannot write, and of one that the system ended as it wrote.
_NO_SHARED_MEMORY = re.compile(r"Bus error|out of shared memory|\(shm\)|shared memory object|</torch_\S*>: No space left")


def available_cores() -> int:
    """Cores for this process: its affinity mask and the quota of its container, shared with the others that train the same run."""
    cores = usable_cores()
    sharing = os.environ.get("LOCAL_WORLD_SIZE", "1")  # processes that train together on this machine
    return max(1, min(cores, _quota() or cores) // max(1, int(sharing) if sharing.isdigit() else 1))


def worker_count(workers: Workers, steps: int, device: torch.device | None) -> int:
    """Processes to start: never more than there are batches.

    `auto` takes every core, at most 16; where the CPU also trains, half of them, for there decoding is the smaller part. device: where
    it is trained meanwhile; None if nothing is.
    """
    if workers == "auto":
        cores = available_cores()
        return min(_MOST, cores if device is None or device.type == "cuda" else max(1, cores // 2), steps)
    return min(workers, steps)


def decoded(files: Dataset[T], count: int, workers: Workers, device: torch.device | None) -> Iterator[T]:
    """What a data set of `count` files gives for each, in their order, from worker processes that are there for this alone.

    workers, device: as `worker_count` takes them.

    Raises:
        RunError: a worker process is gone.
        MachineError: shared memory is too small for what workers hand over.
    """
    processes = worker_count(workers, math.ceil(count / _CHUNK), device)
    with no_advice(), worker_deaths():
        loader: DataLoader[Any] = DataLoader(
            files,
            batch_size=_CHUNK,
            collate_fn=as_it_is,
            num_workers=processes,
            worker_init_fn=prepare_worker if processes else None,
            multiprocessing_context=start_method() if processes else None,
            generator=torch.Generator(),  # otherwise it would draw from the program's own
        )
        for chunk in loader:
            yield from chunk


def as_it_is(loaded: Any) -> Any:
    """Collates nothing: a worker hands over what the data set gave."""
    return loaded


def prepare_worker(_number: int) -> None:
    """One thread each; signals are the parent's business, which ends its workers itself.

    Batch systems send SIGTERM to every process of a job: a worker that died of it would take down the parent before that has saved.
    So the first is left alone, and the second, which comes from the parent if a worker does not end, ends it.
    """
    torch.set_num_threads(1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def start_method() -> str | None:
    """Forked workers begin at once and share the list of files; they touch no GPU. A method that the program has chosen stays."""
    return "fork" if sys.platform == "linux" and multiprocessing.get_start_method(allow_none=True) is None else None


@contextmanager
def no_advice() -> Iterator[None]:
    """Silences torch on more workers than cores, Python (from 3.12) on forking beside threads, and Pillow on odd files.

    The first two are chosen here; of files a note tells before training.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def worker_deaths() -> Iterator[None]:
    """Says in plain words that a worker died; for whatever uses a loader, since torch raises at any moment, from a signal handler.

    Raises:
        RunError: a worker process is gone.
        MachineError: shared memory is too small for what workers hand over.
    """
    try:
        yield
    except RuntimeError as error:
        if _NO_SHARED_MEMORY.search(str(error)):
            raise MachineError(
                "shared memory (/dev/shm), through which processes that decode images hand them over, ran out",
                hint="`train.workers = 0` needs none; in a container more of it is an option (`docker run --shm-size=8g`)",
            ) from None
        if re.match(r"DataLoader worker \(pid", str(error)):  # torch's words; every other RuntimeError is a bug and keeps its traceback
            raise RunError(
                "a process that decodes images died",
                hint="memory ran out? lower `train.workers` (0 decodes without other processes) or `train.batch_size`",
            ) from None
        raise


def _quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> int | None:
    """The CPU quota of a control group (version 2) in whole cores, rounded up; None without one."""
    try:
        quota, period = path.read_text(encoding="ascii").split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):
        return None
