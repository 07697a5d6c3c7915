"""Text from elsewhere (names of classes, files, plugins) made harmless for what shows it: a terminal, JSON, a spreadsheet, a browser."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from typing import Any

# What begins a formula in spreadsheets; the wide forms do so where the keyboard is Japanese.
_FORMULA = "=+-@＝＋－＠"
_NUMBERS = re.compile(r"(\d+)")
_UNSEEN = re.compile(r"[^\n -~]")


def printable(text: str) -> str:
    """The text with everything that would move a terminal's cursor or colour, or turn its direction of writing, as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(text: object, longest: int = 0) -> str:
    """The text on one printable line: tabs and ends of lines become blanks. longest: characters that are kept; 0 means all."""
    text = str(text)
    line = printable((text[: longest + 1] if longest else text).replace("\n", " ").replace("\t", " "))
    return line if not longest or len(line) <= longest else line[: longest - 1] + "…"


def counted(number: int, thing: str, plural: str = "s") -> str:
    """`1 thread`, `2 threads`."""
    return f"{number:,} {thing}{'' if number == 1 else plural}"


def magnitude(number: float) -> str:
    """A large number with three digits: `78.0 k`, `11.7 M`, `1.81 G`."""
    for unit, factor in (("", 1), (" k", 1e3), (" M", 1e6), (" G", 1e9)):
        scaled = number / factor
        if scaled < 999.5 or unit == " G":
            break
    digits = 0 if not unit or scaled >= 99.95 else 1 if scaled >= 9.995 else 2
    return f"{scaled:,.{digits}f}{unit}"


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds with three digits."""
    value = seconds * 1000
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def some(names: Sequence[str]) -> str:
    """The first names in backticks, and how many there are besides."""
    shown = ", ".join(f"`{name}`" for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts names with numbers as people count: `a2` before `a10`."""
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in _NUMBERS.split(name) if part]


def json_text(data: Any, indent: int | None = 2) -> str:
    """JSON, with letters of every language as they are and everything that steers a terminal as an escape.

    indent: columns by which what is nested is indented, on lines of its own; None: all is on one line.
    """
    text = json.dumps(data, indent=indent, ensure_ascii=False)
    return _UNSEEN.sub(lambda c: c[0] if c[0].isprintable() else json.dumps(c[0])[1:-1], text)


def csv_cell(text: object) -> str:
    """One line that no spreadsheet takes for a formula: one that begins like it has a `'` in front. Quotes are the CSV writer's."""
    line = one_line(text)
    return f"'{line}" if line.lstrip()[:1] in tuple(_FORMULA) else line


def html_text(text: object) -> str:
    """One line of plain text for a page, or for an attribute in quotes."""
    return html.escape(one_line(text))
