"""Bit-identical results on a GPU: torch's deterministic algorithms, for those who ask for them and pay with speed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from distillctl.engine.experiment import Experiment
from distillctl.errors import RunError

_MOST_THREADS = 1024
_NO_ALGORITHM = re.compile(r"(\S+) (does not have a deterministic implementation)")


def promise(experiment: Experiment) -> str:
    """What a resumed run can be held to, in words."""
    if experiment.device.type == "cpu" or experiment.settings.deterministic:
        return "bit-identical after a resume on the same kind of machine"
    return "not bit-identical after a resume: `train.deterministic = true` makes it so on a GPU"


def prepare(deterministic: bool) -> None:
    """To be called before anything is computed on a GPU: cuBLAS reads this variable when it starts."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def same_threads(count: object, device: torch.device) -> Iterator[bool]:
    """On a CPU, computes with this number of threads, which the last digits of sums depend on; yields whether it was another before.

    count: what `run.json` says of the run's beginning; anything but a number of threads changes nothing.
    """
    before = torch.get_num_threads()
    wanted = count if device.type == "cpu" and type(count) is int and 0 < count <= _MOST_THREADS else before
    if wanted != before:
        torch.set_num_threads(wanted)
    try:
        yield wanted != before
    finally:
        if wanted != before:
            torch.set_num_threads(before)


@contextmanager
def deterministic_algorithms(experiment: Experiment) -> Iterator[None]:
    """While a run trains: deterministic algorithms if its profile asks for them, and otherwise on a GPU the fastest convolutions.

    Raises:
        RunError: what a model or a method computes has no deterministic algorithm.
    """
    deterministic = experiment.settings.deterministic
    if not deterministic and experiment.device.type == "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(deterministic or before[0])
    torch.backends.cudnn.benchmark = not deterministic  # cuDNN times its algorithms for every shape, and may choose another each time
    try:
        yield
    except RuntimeError as error:
        if not deterministic or (found := _NO_ALGORITHM.search(str(error))) is None:
            raise
        raise RunError(f"`train.deterministic = true` does not go with `{found[1]}`, which {found[2]}", hint="leave it out") from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
