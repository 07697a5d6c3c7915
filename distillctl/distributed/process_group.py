"""The processes that train one run together: who they are, and what they exchange besides gradients.

Launchers (`train --nproc`, torchrun, SLURM) start the same command several times and number the processes in environment variables.
Control goes over the host's network; data go over NCCL between GPUs. A process that is lost or silent makes the others
fail within `heartbeat.patience` of the next exchange on the host. NCCL's own patience is longer: it ends a process without a word and
cannot tell who is lost from who is late, which launchers can.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from distillctl.distributed import heartbeat
from distillctl.errors import LostProcessError, MachineError

T = TypeVar("T")
_SETUP = timedelta(minutes=30)  # one scans a large data set or downloads weights while the others wait
_LATE = timedelta(minutes=10)  # one compiles, or is paused, while the others' GPUs wait
_LOST = re.compile(
    r"gloo|nccl|connection (closed|reset|refused)|timed out|application timeout|pair closure|broken pipe|\bsocket\b|(TCP|File)Store",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those of a run.

    rank: its number, from 0. The first one writes files and talks.
    count: how many there are.
    control, data, features: groups for agreements, gradients, and rows of features; None if the process is alone.
    """

    rank: int = 0
    count: int = 1
    control: Any = None
    data: Any = None
    features: Any = None

    @property
    def first(self) -> bool:
        """Whether this one writes and talks."""
        return self.rank == 0

    def broadcast(self, value: T) -> T:
        """Returns the value of the first process."""
        if self.count == 1:
            return value
        box = [value if self.first else None]
        dist.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]

    def all_gather(self, value: T, *, patient: bool = False) -> list[T]:
        """Returns the values of all processes, by rank. patient: some may come to this call late."""
        if self.count == 1:
            return [value]
        result: list[Any] = [None] * self.count
        dist.all_gather_object(result, value, group=None if patient else self.control)
        return result

    @contextmanager
    def one_after_the_first(self) -> Iterator[None]:
        """The first process does the body, then all others: for what is downloaded or cached once."""
        if not self.first:
            self.broadcast(None)
        yield
        if self.first:
            self.broadcast(None)

    def all_reduce_max(self, *values: int) -> list[int]:
        """Returns the maximum of every number over all processes."""
        if self.count == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX, group=self.control)
        return [int(n) for n in numbers]

    def broadcast_tensors(self, tensors: list[Tensor]) -> None:
        """Replaces tensors, in place, by those of the first process."""
        if self.count == 1:
            return
        with torch.no_grad():
            for dtype in dict.fromkeys(tensor.dtype for tensor in tensors if tensor.numel()):
                some = [tensor for tensor in tensors if tensor.dtype == dtype]
                flat = torch.cat([tensor.reshape(-1) for tensor in some])  # one message instead of hundreds
                dist.broadcast(flat, src=0, group=self.data)
                for tensor, values in zip(some, flat.split([tensor.numel() for tensor in some]), strict=True):
                    tensor.copy_(values.view_as(tensor))

    def all_gather_rows(self, rows: Tensor, total: int) -> Tensor:
        """The rows of all processes, `total` in all, which were cut among them as `distillctl.data.order` does."""
        size, longer = divmod(total, self.count)
        padded = rows.new_zeros(size + (longer > 0), *rows.shape[1:])
        padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(found, padded, group=self.features)
        return torch.cat([part[: size + (rank < longer)] for rank, part in enumerate(found)])

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Returns the sum over all processes, computed in place."""
        dist.all_reduce(tensor, group=self.features)
        return tensor

    def mean_gradients(self, gradients: list[Tensor | None], parameters: list[Tensor]) -> list[Tensor | None]:
        """Returns the mean of every gradient over all processes; None counts as zeros, and stays None where all have None.

        All are summed as one tensor, in the order of the parameters, so that the sums are the same after a resume.
        """
        if self.count == 1 or not parameters:
            return gradients
        there = torch.tensor([g is not None for g in gradients], dtype=torch.int32, device=parameters[0].device)
        dist.all_reduce(there, group=self.data)
        wanted = [n for n, some in enumerate(there.tolist()) if some]
        if not wanted:  # in a phase there is no label loss
            return gradients
        parts = [torch.zeros_like(parameters[n]) if gradients[n] is None else gradients[n] for n in wanted]
        flat = torch.cat([part.reshape(-1) for part in parts if part is not None])
        dist.all_reduce(flat, group=self.data)
        flat /= self.count
        result: list[Tensor | None] = [None] * len(gradients)
        for n, mean in zip(wanted, flat.split([parameters[n].numel() for n in wanted]), strict=True):
            result[n] = mean.view_as(parameters[n])
        return result


ALONE = ProcessGroup()
_joined = ALONE


def current() -> ProcessGroup:
    """Returns the group that this process has joined; `ALONE` if none."""
    return _joined


def announced() -> tuple[int, int, int]:
    """Rank, count and local rank as the launcher says; (0, 1, 0) without one.

    Raises:
        MachineError: the variables make no sense.
    """
    try:
        rank, local = (int(os.environ.get(name, "0")) for name in ("RANK", "LOCAL_RANK"))
        count = int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        raise MachineError("the variables RANK, WORLD_SIZE and LOCAL_RANK must be numbers") from None
    if not 0 <= rank < count:
        raise MachineError(f"RANK is {rank}, but WORLD_SIZE {count}")
    return rank, count, local


def join(device: torch.device) -> ProcessGroup:
    """Meets the others that the launcher has started, if it has; at a second call, those that were met before.

    Raises:
        MachineError: they cannot be met.
    """
    global _joined
    rank, count, _ = announced()
    if _joined.count > 1 or count == 1:
        heartbeat.met.set()
        return _joined
    try:
        patience = timedelta(seconds=heartbeat.patience())
        if heartbeat.supervised():  # through a file of this user alone, and not through a port
            meeting = f"file://{os.environ[heartbeat.GROUP]}/meeting-{heartbeat.restarts()}"
            dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count, timeout=_SETUP)
        else:
            dist.init_process_group("gloo", timeout=_SETUP)
        backend = "nccl" if device.type == "cuda" else "gloo"
        control = dist.new_group(backend="gloo", timeout=patience)
        data = dist.new_group(backend=backend, timeout=max(patience, _LATE) if backend == "nccl" else patience)
        # Two communicators of NCCL must not work at once; autograd calls them in one order in all processes.
        features = data if backend == "nccl" else dist.new_group(backend=backend, timeout=patience)
    except (RuntimeError, ValueError) as error:
        raise MachineError(f"the {count} processes of this run cannot meet: {str(error).splitlines()[0]}") from error
    heartbeat.met.set()
    _joined = ProcessGroup(rank, count, control, data, features)
    return _joined


@contextmanager
def losses_of_processes() -> Iterator[None]:
    """Says in plain words that another process was lost, where an exchange fails.

    Raises:
        LostProcessError: an exchange failed.
    """
    try:
        yield
    except RuntimeError as error:
        if current().count > 1 and (isinstance(error, dist.DistError) or _LOST.search(str(error))):
            raise LostProcessError(
                f"process {current().rank} lost another process of this run: {str(error).splitlines()[0][:200]}",
                hint="the same command continues from the last checkpoint",
            ) from error
        raise
