"""Finds the line of every key of a TOML file, which `tomllib` does not tell, and refuses what no profile needs.

The scanner goes once over the text and is forgiving: where the file is not TOML it moves on to the next line, and
`tomllib` says afterwards what is wrong. It bounds depth and number of a key's parts before `tomllib` sees the file,
whose time grows with the square of the parts and whose stack grows with the depth.
"""

from __future__ import annotations

import json
from bisect import bisect_right

Key = tuple[str | int, ...]
"""A place in a profile: names of tables and keys, and positions in arrays."""

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

_BARE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


class LimitError(Exception):
    """The file is beyond a limit: message and line."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


def key_lines(text: str) -> dict[Key, int]:
    """The line, from 1, of every table and key of a TOML text; the first one where there are several.

    Raises:
        LimitError: brackets are nested too deeply, a key has too many or too long parts, a number has too many digits, or there are too
            many keys.
    """
    scanner = _Scanner(text)
    scanner.run()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.end = len(text)
        self.pos = 0
        self.lines: dict[Key, int] = {}
        self._newlines = [i for i, c in enumerate(text) if c == "\n"]
        self._arrays: dict[Key, int] = {}
        self._keys = 0

    def run(self) -> None:
        table: Key = ()
        while self._skip_space(newlines=True):
            if self.text[self.pos] == "[":
                table = self._header(table)
            else:
                self._pair(table)
            self._to_next_line()

    def _line(self) -> int:
        return bisect_right(self._newlines, self.pos - 1) + 1

    def _record(self, key: Key, line: int) -> None:
        for length in range(1, len(key) + 1):
            self.lines.setdefault(key[:length], line)

    def _skip_space(self, *, newlines: bool) -> bool:
        """Skips blanks (with newlines: also ends of lines and comments); False at the end of the text."""
        while self.pos < self.end:
            c = self.text[self.pos]
            if c in " \t" or (newlines and c in "\r\n"):
                self.pos += 1
            elif newlines and c == "#":
                self._to_next_line()
            else:
                return True
        return False

    def _to_next_line(self) -> None:
        stop = self.text.find("\n", self.pos)
        self.pos = self.end if stop < 0 else stop + 1

    def _header(self, before: Key) -> Key:
        line = self._line()
        array = self.text.startswith("[[", self.pos)
        self._too_deep_if(self._run_of("["), line)
        self.pos += 2 if array else 1
        parts = self._key()
        if not parts or not self.text.startswith("]", self.pos):
            return before
        key: Key = (*self._with_positions(parts[:-1]), parts[-1])
        if array:
            position = self._arrays.get(key, -1) + 1
            self._arrays[key] = position
            key = (*key, position)
        elif key in self._arrays:
            key = (*key, self._arrays[key])
        self._record(key, line)
        return key

    def _with_positions(self, parts: tuple[str, ...]) -> Key:
        key: Key = ()
        for part in parts:
            key = (*key, part)
            if key in self._arrays:
                key = (*key, self._arrays[key])
        return key

    def _pair(self, table: Key, depth: int = 0) -> bool:
        line = self._line()
        parts = self._key()
        if not parts or not self.text.startswith("=", self.pos):
            return False
        self.pos += 1
        key = table + parts
        self._record(key, line)
        self._value(key, depth)
        return True

    def _key(self) -> tuple[str, ...]:
        """A dotted key with the blanks around it; empty where there is none."""
        line = self._line()
        parts: list[str] = []
        while self._skip_space(newlines=False):
            start = self.pos
            if self.text[self.pos] in "\"'":
                self._string()
                raw = self.text[start : self.pos]
                part = _unquote(raw)
            else:
                while self.pos < self.end and self.text[self.pos] in _BARE:
                    self.pos += 1
                part = self.text[start : self.pos]
            if self.pos == start:
                return ()
            if self.pos - start > MAX_KEY:
                raise LimitError(f"a key is longer than {MAX_KEY} characters", line)
            parts.append(part)
            if len(parts) > MAX_PARTS:
                raise LimitError(f"a key has more than {MAX_PARTS} parts", line)
            self._count(line)
            if not self._skip_space(newlines=False) or self.text[self.pos] != ".":
                break
            self.pos += 1
        return tuple(parts)

    def _count(self, line: int) -> None:
        self._keys += 1
        if self._keys > MAX_KEYS:
            raise LimitError(f"there are more than {MAX_KEYS} keys and entries", line)

    def _string(self) -> None:
        """Skips a string of any of the four kinds, or to the end of the line where it does not end."""
        quote = self.text[self.pos]
        if self.text.startswith(quote * 3, self.pos):
            self.pos += 3
            while self.pos < self.end and not self.text.startswith(quote * 3, self.pos):
                self.pos += 2 if quote == '"' and self.text[self.pos] == "\\" else 1
            self.pos = min(self.pos + 3, self.end)
            while self.pos < self.end and self.text[self.pos] == quote:
                self.pos += 1
            return
        self.pos += 1
        while self.pos < self.end and self.text[self.pos] not in (quote, "\n"):
            self.pos += 2 if quote == '"' and self.text[self.pos] == "\\" else 1
        if self.pos < self.end and self.text[self.pos] == quote:
            self.pos += 1
        self.pos = min(self.pos, self.end)

    def _value(self, key: Key, depth: int) -> None:
        if not self._skip_space(newlines=False):
            return
        c = self.text[self.pos]
        if c in "\"'":
            self._string()
        elif c == "[":
            self._array(key, depth + 1)
        elif c == "{":
            self._inline_table(key, depth + 1)
        else:
            start, line = self.pos, self._line()
            while self.pos < self.end and self.text[self.pos] not in ",]}#\n":
                self.pos += 1
            if len(self.text[start : self.pos].strip()) > MAX_BARE_VALUE:
                raise LimitError(f"a value without quotes is longer than {MAX_BARE_VALUE} characters", line)

    def _array(self, key: Key, depth: int) -> None:
        self._too_deep_if(depth, self._line())
        self.pos += 1
        position = 0
        while self._skip_space(newlines=True) and self.text[self.pos] != "]":
            before, line = self.pos, self._line()
            self._count(line)
            self._record((*key, position), line)
            self._value((*key, position), depth)
            position += 1
            if self._skip_space(newlines=True) and self.text[self.pos] == ",":
                self.pos += 1
            if self.pos == before:
                return
        self.pos += 1

    def _inline_table(self, key: Key, depth: int) -> None:
        self._too_deep_if(depth, self._line())
        self.pos += 1
        while self._skip_space(newlines=True) and self.text[self.pos] != "}":
            if not self._pair(key, depth):
                return
            if self._skip_space(newlines=True) and self.text[self.pos] == ",":
                self.pos += 1
        self.pos += 1

    def _run_of(self, c: str) -> int:
        stop = self.pos
        while stop < self.end and self.text[stop] == c:
            stop += 1
        return stop - self.pos

    def _too_deep_if(self, depth: int, line: int) -> None:
        if depth > MAX_DEPTH:
            raise LimitError(f"brackets are nested more than {MAX_DEPTH} deep", line)


def _unquote(raw: str) -> str:
    """The text of a quoted key. Escapes that only TOML knows stay as they are: then a line is not found, no more."""
    if raw.startswith("'"):
        return raw[1:-1]
    try:
        return str(json.loads(raw))
    except ValueError:
        return raw[1:-1]
