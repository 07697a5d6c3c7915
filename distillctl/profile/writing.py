"""Values as TOML: as plain data, and as text.

`toml.dumps` gets all of its text from here. That of toml 0.10.2 does not always read back: strings with control characters or with a
backslash before `x`; keys that end in a newline; tables within lists within tables; datetimes with offsets. What is written is read again
with `tomllib` and compared, so that no run directory ever holds a file that means something else.
"""

from __future__ import annotations

import datetime
import json
import math
import re
import tomllib
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair


def plain(value: Any) -> Any:
    """A value of an options model as TOML data; what is not set is left out."""
    if isinstance(value, BaseModel):
        return {name: plain(item) for name in type(value).model_fields if (item := getattr(value, name)) is not None}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def write_toml(mapping: Mapping[str, Any]) -> str:
    """The mapping as TOML text.

    Raises:
        ValueError: TOML has no form for a value, or what was written does not read back equal.
    """
    import toml  # type: ignore[import-untyped]

    class Encoder(toml.TomlEncoder):  # type: ignore[misc]
        """Writes a table with its sub-tables in one go, which leaves `toml.dumps` nothing to nest."""

        def dump_sections(self, o: Mapping[str, Any], sup: str) -> tuple[str, dict[str, Any]]:
            return _table(o, ()), {}

    text = str(toml.dumps(dict(mapping), encoder=Encoder()))
    try:
        read = tomllib.loads(text)
    except ValueError as error:
        raise ValueError(f"the data cannot be written as TOML: {error}") from error
    if not _same(read, mapping):
        raise ValueError("the data cannot be written as TOML: it reads back different")
    return text


def key_text(key: str) -> str:
    """A key, quoted where it must be."""
    return key if _BARE_KEY.fullmatch(key) else _string(key)


def value_text(value: Any) -> str:
    """A value on one line.

    Raises:
        ValueError: TOML has no form for it.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return repr(float(value))  # also of `nan`, `inf` and `-inf`
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(value_text(v) for v in value) + "]"
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{key_text(k)} = {value_text(v)}" for k, v in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    raise ValueError(f"TOML has no form for a value of type {type(value).__name__}")


def _table(table: Mapping[str, Any], path: tuple[str, ...]) -> str:
    """Values of a table first, then its sub-tables and arrays of tables, which would otherwise swallow them."""
    lines: list[str] = []
    below: list[str] = []
    for key, value in table.items():
        if not isinstance(key, str):
            raise ValueError(f"a key of TOML is a string, not {key!r}")
        name = ".".join(key_text(k) for k in (*path, key))
        if isinstance(value, Mapping):
            below.append(f"\n[{name}]\n" + _table(value, (*path, key)))
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            below += [f"\n[[{name}]]\n" + _table(v, (*path, key)) for v in value]
        else:
            lines.append(f"{key_text(key)} = {value_text(value)}\n")
    text = "".join(lines + below)
    return text if path else text.lstrip("\n")


def _string(text: str) -> str:
    """As JSON has it, whose escapes TOML knows too; TOML alone forbids the bare character 127."""
    if _HALF.search(text):
        raise ValueError("TOML has no form for half of a surrogate pair")
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _same(a: Any, b: Any) -> bool:
    """Equality that knows types (1 is not 1.0, nor true) and takes NaN as equal to NaN."""
    if isinstance(b, Mapping):
        return isinstance(a, dict) and a.keys() == b.keys() and all(_same(a[k], b[k]) for k in b)
    if isinstance(b, list | tuple):
        return isinstance(a, list) and len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(b, float) and isinstance(a, float):
        return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (math.isnan(a) and math.isnan(b))
    return isinstance(b, type(a)) and isinstance(b, bool) == isinstance(a, bool) and bool(a == b)
