"""Reads the files that torchvision downloads (`cifar-10-batches-py`, `cifar-100-python`)."""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100  # type: ignore[import-untyped]

from distillctl import DataError, unpacked
from distillctl_cifar.data.arrays import SIDE, Arrays

_READERS = {"cifar10": CIFAR10, "cifar100": CIFAR100}
_MAX_BYTES, _MAX_FILES = 1 << 30, 100  # the published archives hold 186 MB in 9 files
_NEEDED = {
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *(("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")),
}
"""Of which an array in a pickle is built."""


def unpack(name: str, file: Path) -> Path:
    """Unpacks the archive that torchvision downloads, once; the folder above its content.

    Raises:
        DataError: it is broken, something else, or not to be trusted.
        MachineError: there is no place for it.
    """
    reader = _READERS[name]
    return unpacked(file, containing=reader.meta["filename"], name=reader.base_folder, max_bytes=_MAX_BYTES, max_files=_MAX_FILES).parent


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
    """Reads both splits. The files are pickles: each is read once, and those very bytes are compared with the published checksum.

    Raises:
        DataError: a file is missing or damaged.
    """
    reader = _READERS[name]
    folder = parent / reader.base_folder
    try:
        train, test = (_split(folder, files) for files in (reader.train_list, reader.test_list))
        classes = _content(folder / reader.meta["filename"], reader.meta["md5"])[reader.meta["key"]]
    except (OSError, _ForeignError) as error:
        raise DataError(
            f"the files of `{name}` in `{folder}` are incomplete or damaged: {error}",
            hint="move the folder away and download it again with `download = true`",
        ) from error
    return Arrays(*train, *test, tuple(classes), f"torchvision's files in {folder}")


class _ForeignError(Exception):
    """A file is not the published one."""


def _split(folder: Path, files: list[list[str]]) -> tuple[Tensor, Tensor]:
    """Images, uint8, (N, 32, 32, 3), and labels, int64, (N,), of the named files."""
    parts = [_content(folder / name, checksum) for name, checksum in files]
    planes = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, SIDE, SIDE)
    labels = [label for part in parts for label in part["labels" if "labels" in part else "fine_labels"]]
    return torch.from_numpy(np.ascontiguousarray(planes.transpose(0, 2, 3, 1))), torch.tensor(labels, dtype=torch.int64)


def _content(file: Path, checksum: str) -> dict[str, Any]:
    data = file.read_bytes()
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != checksum:
        raise _ForeignError(f"the checksum of `{file.name}` differs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy 2.4 warns of the old pickles
        content: dict[str, Any] = _Arrays(io.BytesIO(data), encoding="latin1").load()  # written by Python 2
    return content


class _Arrays(pickle.Unpickler):
    """Builds plain containers and arrays of numpy, and nothing else: md5 alone does not tell who made a file."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NEEDED:
            raise _ForeignError(f"it holds `{module}.{name}`, which the published file does not")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)
