"""Checkpoints: plain tensors and containers, written atomically, read without unpickling objects.

Random numbers need no saving: the global generators are seeded anew at every step from (seed, step), the order of the
images is a function of (seed, epoch), and their augmentation one of (seed, epoch, image).
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from distillctl.errors import DataError
from distillctl.files import write_atomically

FORMAT = 1


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint; a crash leaves the old one."""
    write_atomically(path, lambda temporary: torch.save({"format": FORMAT, **state}, temporary))


def load(path: Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU.

    Raises:
        DataError: it is damaged, no checkpoint of ours, or of a newer format.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise DataError(f"the checkpoint `{path}` is damaged: {str(error).splitlines()[0]}", hint="start anew with `--fresh`") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise DataError(f"`{path}` is not a checkpoint of this version of distillctl")
    return state
