"""Reads `meta.mat` of ImageNet's development kit: a MATLAB file of version 5 with an array of structures `synsets`.

Only what that file needs of the format: numbers and text in structures, plain or compressed. An element is its type and its length
in bytes, each of 4, and then its bytes, filled up to a multiple of 8; one of at most 4 bytes has the length in the upper half of the type.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distillctl import DataError

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_STRUCTURE, _TEXT = 2, 4
_NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
_ENCODINGS = {16: "utf-8", 17: "utf-16-le", 4: "utf-16-le", 2: "latin-1", 1: "latin-1"}
_MOST = 64 << 20  # bytes of what a compressed element holds; the published file has 0.1 MB


def read_meta(path: Path) -> dict[int, str]:
    """ILSVRC2012_ID (1 … 1000 are the classes of the challenge) → WordNet number.

    Raises:
        DataError: it is not such a file.
    """
    try:
        for kind, data in _elements(path.read_bytes()[_HEADER:]):
            name, value = _matrix(_inflated(data)) if kind == _COMPRESSED else _matrix(data) if kind == _MATRIX else ("", None)
            if name == "synsets" and isinstance(value, list):
                return {int(row["ILSVRC2012_ID"][0]): row["WNID"] for row in value}
    except (OSError, struct.error, zlib.error, ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise DataError(f"`{path}` cannot be read as the development kit's list of classes: {error}") from error
    raise DataError(f"`{path}` has no list of classes `synsets`: it is not `meta.mat` of ImageNet's development kit")


def _inflated(data: bytes) -> bytes:
    """The content of a compressed element, which is one matrix."""
    inflater = zlib.decompressobj()
    content = inflater.decompress(data, _MOST)
    ((kind, matrix),) = _elements(content)
    if kind != _MATRIX or inflater.unconsumed_tail:
        raise ValueError("a compressed element is not a matrix")
    return matrix


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and bytes of one element after the other."""
    position = 0
    while position + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, position)
        if kind >> 16:  # a small one
            kind, size, start, end = kind & 0xFFFF, kind >> 16, position + 4, position + 8
        else:
            start = position + 8
            end = start + size + (0 if kind == _COMPRESSED else -size % 8)
        if start + size > len(data):
            raise ValueError("it is cut short")
        yield kind, data[start : start + size]
        position = end


def _matrix(data: bytes) -> tuple[str, Any]:
    """Name and content: text, a list of numbers, or for structures a list of dicts; None for anything else."""
    elements = [*_elements(data)]
    flags, name = elements[0][1], elements[2][1].decode("ascii")
    if flags[0] == _STRUCTURE:
        width, names = struct.unpack("<i", elements[3][1])[0], elements[4][1]
        fields = [names[i : i + width].split(b"\0")[0].decode("ascii") for i in range(0, len(names), width)]
        values = [_matrix(content)[1] for _, content in elements[5:]]
        rows = range(0, len(values), len(fields))
        return name, [dict(zip(fields, values[start : start + len(fields)], strict=True)) for start in rows]
    kind, content = elements[3] if len(elements) > 3 else (0, b"")
    if flags[0] == _TEXT:
        return name, content.decode(_ENCODINGS[kind])
    letter = _NUMBERS.get(kind)
    return name, None if letter is None else [value for (value,) in struct.iter_unpack(f"<{letter}", content)]
