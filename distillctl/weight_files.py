"""Opens files of weights without ever building an object that a file describes.

A file holds tensors and plain containers, or is refused. What stands beside the weights in common files (an
`argparse.Namespace`, numpy scalars, paths) is replaced by a placeholder that does nothing.
"""

from __future__ import annotations

import io
import pickle
import re
import warnings
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from distillctl.errors import DataError


class _Placeholder:
    """Stands for an object that is not built: takes whatever the pickle hands to it and keeps nothing."""

    def __new__(cls, *_: object) -> _Placeholder:
        return object.__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


_PLACEHOLDERS = (
    "argparse.Namespace",
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath", "PurePosixPath")),
)


def open_file(path: Path) -> io.BufferedReader:
    """The file, open for reading bytes.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    if path.is_dir():
        student = "; a finished run is named by `run`" if (path / "student.safetensors").exists() else ""
        raise DataError(f"`{path}` is a folder, not a file of weights", hint=f"name a file in it{student}")
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise DataError(f"there is no file `{path}`") from None
    except OSError as error:
        raise DataError(f"`{path}` cannot be read: {error.strerror}") from error


def read_file(path: Path) -> object:
    """What a safetensors or torch file holds: tensors and plain containers, on the CPU.

    Raises:
        DataError: no such file, not a file of weights, damaged, or holding objects that are not read.
    """
    with open_file(path) as file:
        head = file.read(64)
    if not head:
        raise DataError(f"`{path}` is empty")
    if head.startswith(b"version https://git-lfs"):
        raise DataError(f"`{path}` is a pointer of Git LFS, not the file itself", hint="fetch it with `git lfs pull`")
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        raise DataError(f"`{path}` is a web page, not a file of weights", hint="download the file itself, not the page that shows it")
    if path.suffix == ".safetensors" or head[8:10] == b'{"':
        try:
            return safetensors.torch.load_file(path)
        except SafetensorError as error:
            raise DataError(f"`{path}` is no whole safetensors file: {error}") from error
    return _read_torch(path)


def _read_torch(path: Path) -> object:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([(_Placeholder, name) for name in _PLACEHOLDERS]):
            warnings.simplefilter("ignore")  # old files make torch speak of its own storage classes
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from error
    except Exception as error:  # a damaged file makes torch raise nearly anything
        if "TorchScript" in str(error):
            raise DataError(
                f"`{path}` is a TorchScript program, not a file of weights", hint="save the `state_dict()` of the model instead"
            ) from error
        raise DataError(f"`{path}` is damaged or no file of weights ({type(error).__name__})") from error


def _refusal(path: Path, reason: str) -> DataError:
    found = re.search(r"GLOBAL (\S+)", reason) or re.search(r"unrecognized function <\S+ (\S+?)>", reason)
    if found is None:
        return DataError(f"`{path}` is damaged or no file of weights")
    return DataError(
        f"`{path}` holds a pickled object `{found[1]}`, which is not read, since building it can run code",
        hint='in the program that wrote it, save the weights alone: torch.save(model.state_dict(), "weights.pth")',
    )
