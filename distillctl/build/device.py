"""On which device a run trains, and in which precision it can."""

from __future__ import annotations

import torch
from torch import nn

from distillctl.distributed import heartbeat
from distillctl.distributed.process_group import announced
from distillctl.errors import MachineError, ProfileError
from distillctl.profile.schema import Profile


def pick_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ProfileError: another word.
        MachineError: this machine has no such device.
    """
    _, count, local = announced()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and count > 1:
        name = f"cuda:{_own_gpu(local)}"
    elif count > 1 and name.startswith("cuda:"):
        raise ProfileError(f"{count} processes cannot share `{name}`", where="--device", hint="`--device cuda` gives each its own")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()) or (kind == "cpu" and number):
        raise ProfileError(f"unknown device `{name}`", where="--device", hint="allowed: auto, cpu, cuda, cuda:N")
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise MachineError("this machine has no CUDA device that torch can use", where="--device", hint="use `--device cpu`")
        if number and int(number) >= torch.cuda.device_count():
            raise MachineError(f"there is no `{name}`: this machine has {torch.cuda.device_count()} CUDA devices", where="--device")
    device = torch.device(name)
    if device.index is not None:
        torch.cuda.set_device(device)  # what says only "cuda" means this one too
    return device


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


def placed(model: nn.Module, device: torch.device, channels_last: bool) -> nn.Module:
    """The model on the device, in the memory format that half precision wants."""
    moved = model.to(device)
    return moved.to(memory_format=torch.channels_last) if channels_last else moved
