"""Memory of a run: how much it took, what for if it runs out, and how to keep the C library from giving it back after every tensor."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from distillctl.engine.experiment import Experiment
from distillctl.engine.learner import Learner
from distillctl.errors import MachineError

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
_NEVER = -1
_SHORTAGE = re.compile(r"not enough memory|can't allocate memory|out of memory|Cannot allocate memory", re.IGNORECASE)


def keep_freed_memory(device: torch.device) -> None:
    """On a CPU under glibc: blocks that are freed stay with the process.

    By default glibc maps every large tensor anew and returns it to the kernel when it is freed, so that each step pays for
    fresh pages again: some 13 % of a vgg13 → vgg8 step on two cores. Elsewhere this does nothing.
    """
    if device.type != "cpu" or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)


def peak_memory(device: torch.device) -> int | None:
    """Bytes at the peak: of the device for CUDA, of the process otherwise; None where the system does not count them (Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ModuleNotFoundError:
        return None

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def explained_shortage(experiment: Experiment, learners: Sequence[Learner] = ()) -> Iterator[None]:
    """Says what took the memory, if it runs out within.

    learners: those that take a step; none in an evaluation.

    Raises:
        MachineError: it ran out; the message says for what it was used and which settings need less.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not _SHORTAGE.search(str(error)):
            raise
        training = bool(learners)
        doing = "a training step" if training else "an evaluation"
        raise MachineError(
            f"memory ran out in {doing} on {experiment.device}{_asked(error)}: {_usage(experiment, learners)}",
            hint=(
                "raise `train.accumulate` (the batch is computed in so many parts and stays the same), "
                'use `train.precision = "bf16"`, or lower `train.batch_size`'
                if training
                else "lower `evaluate.batch_size`"
            ),
        ) from error


def _asked(error: BaseException) -> str:
    found = re.search(r"[Tt]ried to allocate ([\d.]+ ?[KMGT]?i?B)|you tried to allocate (\d+) bytes", str(error))
    if found is None:
        return ""
    return f", asking for {found[1] or _size(int(found[2]))} more"


def _usage(experiment: Experiment, learners: Sequence[Learner]) -> str:
    """What is known to lie in memory; the rest are activations."""
    own = list(experiment.model.state_dict().values())
    student = {t.data_ptr() for t in own}
    optimizers = [learner.optimizer for learner in learners]
    states = [state for optimizer in optimizers for state in optimizer.state.values()]
    parts = {
        "the student": own,
        "the methods": [t for t in experiment.objective.methods.state_dict().values() if t.data_ptr() not in student],
        "the teacher": [] if experiment.network is None else list(experiment.network.model.state_dict().values()),
        "the optimizer": [t for state in states for t in state.values() if isinstance(t, Tensor)],
        "gradients": [p.grad for o in optimizers for group in o.param_groups for p in group["params"] if p.grad is not None],
    }
    shown = ", ".join(f"{name} {_size(count)}" for name, tensors in parts.items() if (count := _sum(tensors)))
    return f"{shown}; nearly all else are activations of a batch"


def _sum(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _size(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB" if count >= 2**20 else f"{count / 1024:,.0f} KiB"
