"""Tells by its first bytes what a file is; most files that are not weights are recognised here."""

from __future__ import annotations

import io
import json
import stat
from pathlib import Path

from distillctl.errors import DataError
from distillctl.text import one_line

_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
}

_FOREIGN = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras writes",
    b"\x93NUMPY": "a single array of numpy",
    b"GGUF": "a GGUF file, mostly of quantised weights",
}
"""Formats of other programs, which people name by mistake."""

_BY_NAME = {
    ".onnx": "an ONNX file",
    ".tflite": "a TensorFlow Lite file",
    ".pb": "a graph of TensorFlow",
    ".mlmodel": "a Core ML file",
    **dict.fromkeys((".engine", ".plan", ".trt"), "a TensorRT engine"),
}
"""Those without a beginning of their own."""

_INDEX_BYTES = 32 << 20
"""An index has about 100 bytes a tensor."""

_PARTS_SHOWN = 4


def open_file(path: Path) -> io.BufferedReader:
    """The file, open for reading bytes.

    Raises:
        DataError: there is none, it is a folder or a device, or it cannot be read.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            student = "; a finished run is named by `run`" if (path / "student.safetensors").exists() else ""
            raise DataError(f"`{path}` is a folder, not a file of weights", hint=f"name a file in it{student}")
        if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
            raise DataError(f"`{path}` is a device or a pipe, not a file", hint="save the weights to a file")
        return path.open("rb")
    except FileNotFoundError:
        raise DataError(f"there is no file `{path}`") from None
    except OSError as error:
        raise DataError(f"`{path}` cannot be read: {error.strerror}") from error
    except ValueError as error:  # a zero byte in the path
        raise DataError(f"`{path}` cannot be read: {error}") from error


def is_safetensors(path: Path) -> bool:
    """Whether the file is one of safetensors; otherwise `torch.save` wrote it.

    Raises:
        DataError: it cannot be opened, or is not a file of weights.
    """
    with open_file(path) as file:
        head = file.read(512)
    if not head:
        raise DataError(f"`{path}` is empty")
    if head.startswith(b"version https://git-lfs"):
        raise DataError(f"`{path}` is a pointer of Git LFS, not the file itself", hint="fetch it with `git lfs pull`")
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        raise DataError(f"`{path}` is a web page, not a file of weights", hint="download the file itself, not the page that shows it")
    if path.suffix == ".safetensors" or head[8:10] == b'{"':
        return True
    # Pickles of protocol 2 and later, which are all that `torch.load` takes, begin with 0x80.
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return False
    raise _no_weights(path, head)


def _no_weights(path: Path, head: bytes) -> DataError:
    if head[257:262] == b"ustar":
        return DataError(
            f"`{path}` is a tar archive, which is not read",
            hint="unpack it and name the file in it; PyTorch before 0.1.10 saved weights so: save them anew with a later one",
        )
    if (parts := _parts(path, head)) is not None:
        return DataError(
            f"`{path}` is an index of weights in several files, not a file of weights: {', '.join(parts) or 'it names none'}",
            hint="name one file that holds them all",
        )
    for start, program in _PACKED.items():
        if head.startswith(start):
            return DataError(f"`{path}` is compressed with {program}", hint="unpack it and name the file in it")
    for start, what in _FOREIGN.items():
        if head.startswith(start):
            return DataError(f"`{path}` is {what}, not a file of PyTorch or safetensors", hint="convert it to safetensors")
    if what := _BY_NAME.get(path.suffix.lower(), ""):
        return DataError(f"`{path}` is {what}, which has a graph and not a state dict", hint="name the weights from which it was exported")
    return DataError(f"`{path}` is damaged or not a file of weights")


def _parts(path: Path, head: bytes) -> list[str] | None:
    """The first of the files that an index such as `model.safetensors.index.json` names; None if it is not an index."""
    if not head.lstrip().startswith(b"{") or path.stat().st_size > _INDEX_BYTES:
        return None
    try:
        places = json.loads(path.read_bytes())["weight_map"].values()
        names = sorted({str(name) for name in places})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return [f"`{one_line(name, 60)}`" for name in names[:_PARTS_SHOWN]] + ["…"][: len(names) > _PARTS_SHOWN]
