"""A TOML file: its bytes, its tables, and the line of every key, with one clear error for whatever a file can be that is not a profile.

`tomllib` does not tell the lines of keys. A scanner of our own goes once over the text and finds them. It is forgiving: where the text is
not TOML it moves on to the next line, and `tomllib` says afterwards what is wrong. It also bounds the depth and the number of a key's
parts before `tomllib` sees the text, whose time grows with the square of the parts and whose stack grows with the depth.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from bisect import bisect_left
from pathlib import Path
from typing import Any

from distillctl.errors import ProfileError
from distillctl.profile.problems import near_files
from distillctl.text import printable

Key = tuple[str | int, ...]
"""A place in a profile: names of tables and keys, and positions in arrays."""

MAX_BYTES = 1 << 18
# A device or a FIFO is opened without waiting for it, and becomes no terminal of ours. Windows knows neither.
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
"""Size of the largest profile that is read."""
MAX_DEPTH = 16
"""Nested brackets and braces."""
MAX_PARTS = 16
"""Parts of one dotted key."""
MAX_KEY = 256
"""Characters of one part of a key."""
MAX_KEYS = 20_000
"""Keys and entries of lists in the whole file, each part of a dotted key counted; `tomllib` takes 10 µs for a part."""
MAX_BARE_VALUE = 64
"""Characters of a value without quotes: a number, a date, `true`. Longer integers cannot even be printed."""

_AT_LINE = re.compile(r" \(at line (\d+), column (\d+)\)$")
_BLANKS = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*+")
_REST_OF_LINE = re.compile(r"[^\n]*\n?")
_BRACKETS = re.compile(r"\[+")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE = re.compile(r"[^,\]}#\n]*")
# The four kinds of strings; one that does not end goes to the end of the line, or of the text where it has three quotes.
_STRING = re.compile(
    r'''"""(?:[^"\\]+|\\.|"(?!""))*+"*|\'\'\'(?:[^']+|'(?!''))*+'*|"(?:[^"\\\n]+|\\.)*+"?|'[^'\n]*'?''',
    re.DOTALL,
)


class SpecialFileError(OSError):
    """A pipe, socket or device, which may have no end or no beginning."""


class LimitError(Exception):
    """The file is beyond a limit: message and line."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


def read_start(path: Path, most: int) -> bytes:
    """The first bytes of a file.

    Raises:
        SpecialFileError: it is not a regular file; it is not waited for.
        OSError: it cannot be read. ValueError: no file can have such a name.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _AT_ONCE)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise SpecialFileError
        return file.read(most)


def read_bytes(path: Path) -> bytes:
    """The bytes of a profile.

    Raises:
        ProfileError: there is no such file, it cannot be read, or it is too large to be a profile.
    """
    shown = printable(str(path))
    try:
        if path.is_dir():
            raise ProfileError(f"`{shown}` is a directory, not a profile", hint="name a `.toml` file in it")
        data = read_start(path, MAX_BYTES + 1)
    except SpecialFileError:
        raise ProfileError(f"`{shown}` is a pipe or device, not a profile", hint="write it to a `.toml` file first") from None
    except FileNotFoundError:
        if path.is_symlink():
            raise ProfileError(f"`{shown}` is a link that leads nowhere", hint=f"it names `{printable(str(path.readlink()))}`") from None
        raise ProfileError(f"there is no profile `{shown}`", hint=near_files(path, ".toml")) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ProfileError(f"the profile `{shown}` cannot be read: {reason.lower()}") from None
    if len(data) > MAX_BYTES:
        raise ProfileError(f"`{shown}` is larger than {MAX_BYTES >> 10} KiB and cannot be a profile")
    return data


def parse(data: bytes, path: Path) -> tuple[dict[str, Any], dict[Key, int]]:
    """The tables of a profile, and the line of every key.

    Raises:
        ProfileError: the bytes are not TOML, with the line.
    """
    shown = printable(str(path))
    text = _decode(data, shown)
    try:
        lines = key_lines(text)
        return tomllib.loads(text), lines
    except LimitError as error:
        raise ProfileError(error.message, where=f"{shown}:{error.line}") from None
    except tomllib.TOMLDecodeError as error:
        raise _not_toml(str(error), shown, text) from None


def _decode(data: bytes, shown: str) -> str:
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ProfileError(
            f"`{shown}` starts with a byte order mark", where=f"{shown}:1", hint="save it as plain UTF-8 without a byte order mark"
        )
    if b"\0" in data:
        raise ProfileError(f"`{shown}` is a binary file, not a profile")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ProfileError(f"`{shown}` is not text in UTF-8", where=f"{shown}:{line}") from None
    if not text.strip():
        raise ProfileError(f"the profile `{shown}` is empty", hint="`distillctl init` writes one to start from")
    return text


def _not_toml(message: str, shown: str, text: str) -> ProfileError:
    hint = ""
    if found := _AT_LINE.search(message):
        line, message = int(found[1]), message[: found.start()]
        source = text.splitlines()[line - 1 : line]
        if "Invalid value" in message and source and re.match(r"\s*[\w.\-]+\s*=\s*[A-Za-z./~]", source[0]):
            hint = "strings stand in quotes, and `true` and `false` are written small"
    else:
        line, message = text.count("\n") + 1, message.removesuffix(" (at end of document)")
    message = printable(message[:1].lower() + message[1:].rstrip("."))
    return ProfileError(f"this is not valid TOML: {message}", where=f"{shown}:{line}", hint=hint)


def key_lines(text: str) -> dict[Key, int]:
    """The line, from 1, of every table and key of a TOML text; the first one where there are several.

    Raises:
        LimitError: brackets are nested too deeply, a key has too many or too long parts, a number has too many digits, or there are too
            many keys.
    """
    return _Scanner(text).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.pos = 0
        self.lines: dict[Key, int] = {}
        self._newlines = [i for i, c in enumerate(text) if c == "\n"]
        self._last: dict[Key, int] = {}  # of each array of tables: the position of its last table
        self._keys = 0

    def run(self) -> dict[Key, int]:
        table: Key = ()
        while c := self._next(_GAP):
            if c == "[":
                table = self._header() or table
            else:
                self._pair(table)
            self._take(_REST_OF_LINE)
        return self.lines

    def _take(self, pattern: re.Pattern[str]) -> str:
        """Goes over what fits the pattern here; empty where nothing does."""
        found = pattern.match(self.text, self.pos)
        if found is None:
            return ""
        self.pos = found.end()
        return found[0]

    def _next(self, over: re.Pattern[str]) -> str:
        """The character behind a gap; empty at the end of the text."""
        self._take(over)
        return self.text[self.pos : self.pos + 1]

    def _eat(self, mark: str) -> bool:
        there = self.text.startswith(mark, self.pos)
        self.pos += len(mark) if there else 0
        return there

    def _line(self) -> int:
        return bisect_left(self._newlines, self.pos) + 1

    def _record(self, key: Key, line: int) -> None:
        for length in range(1, len(key) + 1):
            self.lines.setdefault(key[:length], line)

    def _header(self) -> Key:
        """A table's key; empty where this is not a header."""
        start, line = self.pos, self._line()
        brackets = len(self._take(_BRACKETS))
        self._bound_depth(brackets, line)
        self.pos = start + min(brackets, 2)
        key: Key = ()
        parts = self._key()
        if not parts or not self._eat("]"):
            return ()
        for part in parts[:-1]:
            key = (*key, part)
            key = (*key, self._last[key]) if key in self._last else key
        key = (*key, parts[-1])
        if brackets > 1:
            self._last[key] = self._last.get(key, -1) + 1
            key = (*key, self._last[key])
        self._record(key, line)
        return key

    def _pair(self, table: Key, depth: int = 0) -> bool:
        line = self._line()
        parts = self._key()
        if not parts or not self._eat("="):
            return False
        self._record(table + parts, line)
        self._value(table + parts, depth)
        return True

    def _key(self) -> tuple[str, ...]:
        """A dotted key with the blanks around it; empty where there is none."""
        line = self._line()
        parts: list[str] = []
        while self._next(_BLANKS):
            raw = self._take(_STRING) or self._take(_BARE_KEY)
            if not raw:
                return ()
            if len(raw) > MAX_KEY:
                raise LimitError(f"a key is longer than {MAX_KEY} characters", line)
            parts.append(_unquoted(raw))
            if len(parts) > MAX_PARTS:
                raise LimitError(f"a key has more than {MAX_PARTS} parts", line)
            self._count(line)
            self._take(_BLANKS)
            if not self._eat("."):
                break
        return tuple(parts)

    def _value(self, key: Key, depth: int) -> None:
        c, line = self._next(_BLANKS), self._line()
        if c == "[":
            self._array(key, depth + 1)
        elif c == "{":
            self._inline_table(key, depth + 1)
        elif not self._take(_STRING) and len(self._take(_BARE_VALUE).strip()) > MAX_BARE_VALUE:
            raise LimitError(f"a value without quotes is longer than {MAX_BARE_VALUE} characters", line)

    def _array(self, key: Key, depth: int) -> None:
        self._bound_depth(depth, self._line())
        self.pos += 1
        position = 0
        while self._next(_GAP) not in ("]", ""):
            before, line = self.pos, self._line()
            self._count(line)
            self._record((*key, position), line)
            self._value((*key, position), depth)
            position += 1
            self._take(_GAP)
            self._eat(",")
            if self.pos == before:
                return
        self._eat("]")

    def _inline_table(self, key: Key, depth: int) -> None:
        self._bound_depth(depth, self._line())
        self.pos += 1
        while self._next(_GAP) not in ("}", ""):
            if not self._pair(key, depth):
                return
            self._take(_GAP)
            self._eat(",")
        self._eat("}")

    def _count(self, line: int) -> None:
        self._keys += 1
        if self._keys > MAX_KEYS:
            raise LimitError(f"there are more than {MAX_KEYS} keys and entries", line)

    def _bound_depth(self, depth: int, line: int) -> None:
        if depth > MAX_DEPTH:
            raise LimitError(f"brackets are nested more than {MAX_DEPTH} deep", line)


def _unquoted(raw: str) -> str:
    """The text of a key's part. Escapes that only TOML knows stay as they are: then a line is not found, no more."""
    if raw[0] not in "\"'":
        return raw
    try:
        return str(json.loads(raw)) if raw[0] == '"' else raw[1:-1]
    except ValueError:
        return raw[1:-1]
