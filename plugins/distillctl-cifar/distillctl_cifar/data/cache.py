"""Keeps decoded images in the user's cache folder, so that they are decoded once and not for every run.

The folder is `$DISTILLCTL_CACHE`, or `distillctl` in `$XDG_CACHE_HOME` or in `~/.cache`. It may be deleted at any time. A file
that is damaged is made anew; a folder that cannot be written only costs time.
"""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file
from torch import Tensor

from distillctl import cache_folder
from distillctl_cifar.data.arrays import SIDE


def file_for(key: str) -> Path | None:
    """The file that holds what belongs to this key; None if there is no place for it."""
    place = cache_folder()
    return place / f"{key}.safetensors" if place else None


def load(file: Path, counts: tuple[int, int]) -> tuple[Tensor, Tensor] | None:
    """Training and test images, uint8 (N, 32, 32, 3); None if the file is missing, damaged or for other numbers of images."""
    try:
        content = load_tensors(file.read_bytes())
        images = content["train"], content["test"]
        checksums = content["crc32"].tolist()
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError):
        return None
    fits = all(t.dtype == torch.uint8 and t.shape == (n, SIDE, SIDE, 3) for t, n in zip(images, counts, strict=True))
    return images if fits and checksums == [_crc32(t) for t in images] else None


def save(file: Path, train: Tensor, test: Tensor) -> None:
    """Writes a cache under a temporary name and renames it; does nothing where that fails."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"train": train, "test": test, "crc32": torch.tensor([_crc32(train), _crc32(test)])}, temporary)
        temporary.replace(file)
    except (OSError, SafetensorError):
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _crc32(tensor: Tensor) -> int:
    return zlib.crc32(tensor.numpy().data)
