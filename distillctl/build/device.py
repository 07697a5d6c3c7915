"""On which device a run trains, and in which precision it can."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from distillctl.distributed import heartbeat
from distillctl.distributed.process_group import announced
from distillctl.engine.precision import AUTOCAST
from distillctl.errors import MachineError, ProfileError
from distillctl.profile.schema import Profile

_LARGE = 128
"""Pixels from which on an image's convolutions repay another order in memory in float32."""
_SIGNS_OF_NVIDIA = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidia0"))
_torch_says = ""


def pick_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ProfileError: another word.
        MachineError: this machine has no such device.
    """
    _, count, local = announced()
    if name == "auto":
        name = "cuda" if _is_there() else "cpu"
    if name == "cuda" and count > 1:
        name = f"cuda:{_own_gpu(local)}"
    elif count > 1 and name.startswith("cuda:"):
        raise ProfileError(f"{count} processes cannot share `{name}`", where="--device", hint="`--device cuda` gives each its own")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()) or (kind == "cpu" and number):
        raise ProfileError(f"unknown device `{name}`", where="--device", hint="allowed: auto, cpu, cuda, cuda:N")
    if kind == "cuda":
        if not _is_there():
            says = f": {_torch_says}" if _torch_says else ""
            raise MachineError(f"this machine has no CUDA device that torch can use{says}", where="--device", hint="use `--device cpu`")
        if number and int(number) >= torch.cuda.device_count():
            raise MachineError(f"there is no `{name}`: this machine has {torch.cuda.device_count()} CUDA devices", where="--device")
    device = torch.device(name)
    if device.index is not None:
        torch.cuda.set_device(device)  # what says only "cuda" means this one too
    return device


def _is_there() -> bool:
    """Whether torch can use a GPU; what it warns of if it cannot is kept, since it warns once."""
    global _torch_says
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        there = torch.cuda.is_available()
    if caught and not there:
        _torch_says = str(caught[0].message).split(" (Triggered internally")[0]
    return there


def _own_gpu(local: int) -> int:
    """The GPU of the process with this number on its machine; where each sees only its own, that is the first."""
    there = torch.cuda.device_count()
    return 0 if there == 1 and not heartbeat.supervised() else local


def check_precision(profile: Profile, device: torch.device) -> None:
    """Before anything is built, and before a teacher is trained.

    Raises:
        ProfileError: the device cannot train in the profile's precision.
    """
    if profile.train.precision == "fp16" and device.type != "cuda":
        raise ProfileError('`train.precision = "fp16"` needs a GPU', hint="use `bf16` or `fp32` on a CPU")


def channels_last(device: torch.device, precision: str, pixels: int) -> tuple[bool, bool]:
    """Whether the networks lie in memory with channels last, and whether what is trained beside them does too.

    It is what tensor cores want: in half precision always, and in float32 for large images where it is computed in TF32. On a CPU the
    modules of methods stay as they are, since another order of sums would change the results of runs.
    """
    if device.type != "cuda":
        return precision in AUTOCAST, False
    fast = precision in AUTOCAST or (pixels >= _LARGE and torch.cuda.get_device_capability(device) >= (8, 0))
    return fast, fast


def placed(model: nn.Module, device: torch.device, channels_last: bool) -> nn.Module:
    """The model on the device, in the memory format that is fastest there."""
    moved = model.to(device)
    return moved.to(memory_format=torch.channels_last) if channels_last else moved


def missing_for_compile(device: torch.device) -> str:
    """Why `torch.compile` cannot work on a GPU, as a clause; empty if it can, or if the device is a CPU.

    Triton, which it writes kernels for, needs a GPU of compute capability 7.0, and builds its launcher by a C compiler.
    """
    if device.type != "cuda":
        return ""
    capability = torch.cuda.get_device_capability(device)
    if capability < (7, 0):
        return f"the GPU has compute capability {capability[0]}.{capability[1]}, and Triton needs 7.0"
    if find_spec("triton") is None:
        return "Triton is not installed"
    if sys.platform == "win32":  # its Triton brings a compiler
        return ""
    if not os.environ.get("CC") and not any(map(shutil.which, ("gcc", "clang"))):
        return "there is no C compiler (`CC`, `gcc` or `clang`)"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "the header files of Python are missing"
    return ""


def unused_gpu(name: str, device: torch.device) -> str:
    """A note where `auto` is a CPU although there is an NVIDIA GPU and a torch for it; otherwise empty."""
    if name != "auto" or device.type != "cpu" or torch.version.cuda is None or not any(path.exists() for path in _SIGNS_OF_NVIDIA):
        return ""
    return f"this machine has an NVIDIA GPU that torch cannot use, so that the CPU is used{': ' if _torch_says else ''}{_torch_says}"
