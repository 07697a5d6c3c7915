"""Memory of a run: how much it took, and how to keep the C library from giving it back after every tensor."""

from __future__ import annotations

import ctypes
import sys

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
_NEVER = -1


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


def peak_memory(device: torch.device) -> int:
    """Bytes at the peak: of the device for CUDA, of the process otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
