"""Reads the files that torchvision downloads (`cifar-10-batches-py`, `cifar-100-python`)."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import CIFAR10, CIFAR100  # type: ignore[import-untyped]

from distillctl import DataError, unpacked
from distillctl_cifar.data.arrays import Arrays

_READERS = {"cifar10": CIFAR10, "cifar100": CIFAR100}
_MAX_BYTES, _MAX_FILES = 1 << 30, 100  # the published archives hold 186 MB in 9 files


def places(name: str, root: Path) -> tuple[Path, Path]:
    """The folders in which torchvision's files may lie: in `root` or beside it."""
    folder = _READERS[name].base_folder
    return root / folder, root.parent / folder


def unpack(name: str, file: Path) -> Path:
    """Unpacks the archive that torchvision downloads, once; the folder above its content.

    Raises:
        DataError: it is broken, something else, or not to be trusted.
        MachineError: there is no place for it.
    """
    reader = _READERS[name]
    return unpacked(file, containing=reader.meta["filename"], name=reader.base_folder, max_bytes=_MAX_BYTES, max_files=_MAX_FILES).parent


def archive_in(name: str, root: Path) -> Path | None:
    """The archive that torchvision downloads, if it lies in `root` or beside it."""
    return next((file for folder in (root, root.parent) if (file := folder / _READERS[name].filename).is_file()), None)


def download(name: str, root: Path) -> None:
    """Downloads and unpacks torchvision's files into `root`.

    Raises:
        DataError: it cannot be downloaded or written.
    """
    try:
        _READERS[name](root, download=True)
    except (OSError, RuntimeError, EOFError) as error:  # urllib's errors are OSErrors; a wrong checksum is a RuntimeError
        raise DataError(
            f"`{name}` cannot be downloaded into `{root}`: {error}",
            hint=f"fetch {_READERS[name].url} by other means and unpack it there",
        ) from error


def read(name: str, parent: Path) -> Arrays:
    """Reads both splits; torchvision compares the checksum of every file first, since they are pickles.

    Raises:
        DataError: a file is missing or damaged.
    """
    reader = _READERS[name]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy 2.4 warns of the old pickles
            train, test = reader(parent, train=True), reader(parent, train=False)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"the files of `{name}` in `{parent / reader.base_folder}` are incomplete or damaged: a checksum differs",
            hint="move the folder away and download it again with `download = true`",
        ) from error
    return Arrays(
        torch.from_numpy(np.ascontiguousarray(train.data)),
        torch.tensor(train.targets, dtype=torch.int64),
        torch.from_numpy(np.ascontiguousarray(test.data)),
        torch.tensor(test.targets, dtype=torch.int64),
        tuple(train.classes),
        f"torchvision's files in {parent / reader.base_folder}",
    )
