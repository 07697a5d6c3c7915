"""Reads safetensors files: a JSON header and raw numbers, with nothing in them that could be executed.

The library checks that offsets are in order and fit the shapes. Before that, the header is held to a size, and what the library cannot
turn into tensors of torch is refused in words.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from distillctl.errors import DataError
from distillctl.weights.contents import shown
from distillctl.weights.opening import open_file
from distillctl.weights.quantised import HINT

_HEADER_BYTES = 32 << 20
"""A header has about 100 bytes a tensor: room for 300 000."""

_DIMENSIONS = 32
_LARGEST = 1 << 62
"""Of torch's sizes, in bytes: with a size of 0 beside them, the others of a shape are held to nothing by the file's length."""

_TYPES = {
    *("F64", "F32", "F16", "BF16", "C64", "BOOL", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8"),
    *("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"),
}
"""Numeric types of the format that torch computes with."""

_PACKED = ("F4", "F6", "I4", "U4", "F8_E8M0")
"""Beginnings of those that quantised weights have, several of which share a byte or a scale."""


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, in the order of the header.

    Raises:
        DataError: it cannot be opened, is damaged, or holds what is not a tensor of torch.
    """
    header = _header(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in header if name != "__metadata__"}
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise _damaged(path, str(error).partition("\n")[0][:200]) from error


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"`{path}` is not a whole safetensors file: {reason}", hint="get the file anew from where it came from")


def _header(path: Path) -> dict[str, Any]:
    """The header, with types and shapes that torch has."""
    with open_file(path) as file:
        size = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise _damaged(path, f"its header claims {length} bytes, the file has {size}")
        if length > _HEADER_BYTES:
            raise _damaged(path, f"its header of {length} bytes is larger than any that is needed")
        text = file.read(length)
    try:
        header = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        raise _damaged(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    for name, entry in header.items():
        if name != "__metadata__":
            _check_entry(path, name, entry)
    return header


def _check_entry(path: Path, name: str, entry: object) -> None:
    if not isinstance(entry, dict):
        raise _damaged(path, f"{shown(name)} is not described")
    kind, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(kind, str) or kind not in _TYPES:
        packed = isinstance(kind, str) and kind.startswith(_PACKED)
        raise DataError(
            f"{shown(name)} in `{path}` is of the type {shown(kind)}, which is not read" + (": the file is quantised" if packed else ""),
            hint=HINT if packed else "save the weights as floating point numbers",
        )
    if not isinstance(shape, list) or not all(type(number) is int and number >= 0 for number in shape):
        raise _damaged(path, f"{shown(name)} has no shape")
    if len(shape) > _DIMENSIONS or 8 * math.prod(max(number, 1) for number in shape) > _LARGEST:
        raise _damaged(path, f"{shown(name)} has a shape that no tensor has")
