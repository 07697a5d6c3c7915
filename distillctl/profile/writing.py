"""Writes TOML through the `toml` package, whose own text of strings, keys and nested lists does not always read back.

Known faults of toml 0.10.2 that are worked round here: strings with control characters or with a backslash before `x`;
keys that end in a newline; tables within lists within tables; datetimes with offsets. What is written is read again
with `tomllib` and compared, so that no run directory ever holds a file that means something else.
"""

from __future__ import annotations

import datetime
import math
import re
import tomllib
from collections.abc import Mapping
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def write_toml(mapping: Mapping[str, Any]) -> str:
    """The mapping as TOML text.

    Raises:
        ValueError: TOML has no form for a value, or what was written does not read back equal.
    """
    import toml  # type: ignore[import-untyped]

    class Encoder(toml.TomlEncoder):  # type: ignore[misc]
        """Writes a table with its sub-tables in one go; `toml.dumps` is left with nothing to nest."""

        def dump_sections(self, o: Mapping[str, Any], sup: str) -> tuple[str, dict[str, Any]]:
            return _table(o, ()), {}

        def dump_value(self, v: Any) -> str:
            return value_text(v)

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
        return _float(value)
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
    out = []
    for c in text:
        if c in _SHORT:
            out.append(_SHORT[c])
        elif ord(c) < 32 or ord(c) == 127:
            out.append(f"\\u{ord(c):04x}")
        elif 0xD800 <= ord(c) < 0xE000:
            raise ValueError("TOML has no form for half of a surrogate pair")
        else:
            out.append(c)
    return '"' + "".join(out) + '"'


def _float(value: float) -> str:
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return repr(float(value))


def _same(a: Any, b: Any) -> bool:
    """Equality that knows types (1 is not 1.0, nor true) and takes NaN as equal to NaN."""
    if isinstance(b, Mapping):
        return isinstance(a, dict) and a.keys() == b.keys() and all(_same(a[k], b[k]) for k in b)
    if isinstance(b, list | tuple):
        return isinstance(a, list) and len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(b, float) and isinstance(a, float):
        return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (math.isnan(a) and math.isnan(b))
    return isinstance(b, type(a)) and isinstance(b, bool) == isinstance(a, bool) and bool(a == b)
