"""Prints what commands have to say: tables with colour on a terminal, plain text elsewhere. Only this module knows rich."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import zip_longest
from typing import Any

import typer

from distillctl.text import json_text, one_line

_NARROWEST = 20
"""Columns below which no column of a table is made narrower."""


def on_terminal() -> bool:
    """Whether a person reads along."""
    return sys.stdout.isatty()


@contextmanager
def loading() -> Iterator[None]:
    """Around the import of what imports torch, which takes seconds: a person sees why nothing happens yet."""
    shown = sys.stderr.isatty() and "torch" not in sys.modules
    if shown:
        sys.stderr.write("loading torch …")
        sys.stderr.flush()
    try:
        yield
    finally:
        if shown:
            sys.stderr.write("\r\x1b[K")  # the line is empty again
            sys.stderr.flush()


def line(text: str = "") -> None:
    """One line."""
    typer.echo(one_line(text))


def words(text: str, indent: int = 4) -> None:
    """One line, or where the terminal is narrower as many as it takes, broken between words and indented from the second on."""
    for part in wrapped(text, indent):
        typer.echo(part)


def wrapped(text: str, indent: int = 4) -> list[str]:
    """A text on one printable line, or broken between words where the terminal is narrower: all lines but the first are indented.

    What stands in backticks is not broken, since it may be a command that somebody copies.
    """
    text, columns = one_line(text), width()
    if not 0 < columns < len(text):
        return [text]
    held = re.sub("`[^`]*`", lambda quoted: quoted[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(
        held, max(columns, indent + _NARROWEST), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace("\0", " ") for line in lines]


def heading(text: str) -> None:
    """A line that stands over others, in words."""
    for part in wrapped(text, 2):
        typer.secho(part, bold=True) if on_terminal() else typer.echo(part)


def as_json(data: Any) -> None:
    """Data for scripts."""
    typer.echo(json_text(data))


def width() -> int:
    """Columns of the terminal on which this is read, also through a pipe; 0 where there is none."""
    if (told := os.environ.get("COLUMNS", "")).isdigit():
        return int(told)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            return os.get_terminal_size(stream.fileno()).columns
    return 0


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, indent: int = 0, less: Sequence[str] = ()) -> None:
    """A table with columns side by side, the widest of which wrap between words where the terminal is narrow.

    less: columns that are left out, the first one first, while the table is wider than the terminal. Empty columns are left out.
    """
    cells = [[one_line(c) for c in row] for row in rows]
    used = [i for i in range(len(headers)) if any(row[i] for row in cells)]
    space = width() - indent
    for name in less:
        if 0 < space < sum(max(len(row[i]) for row in [headers, *cells]) + 2 for i in used) - 2:
            used = [i for i in used if headers[i] != name]
    headers, cells = [headers[i] for i in used], [[row[i] for i in used] for row in cells]
    if not cells:
        return
    if on_terminal():
        _rich_table(headers, cells, indent)
        return
    widths = [max(len(row[i]) for row in [headers, *cells]) for i in range(len(headers))]
    while 0 < space < sum(widths) + 2 * (len(widths) - 1) and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    for row in [headers, *cells]:
        folded = [textwrap.wrap(c, w, break_on_hyphens=False) if len(c) > w else [c] for c, w in zip(row, widths, strict=True)]
        for parts in zip_longest(*folded, fillvalue=""):
            typer.echo((" " * indent + "  ".join(c.ljust(w) for c, w in zip(parts, widths, strict=True))).rstrip())


def _rich_table(headers: Sequence[str], rows: Sequence[Sequence[str]], indent: int) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for i, header in enumerate(headers):
        made.add_column(header, overflow="fold", no_wrap=i == 0, style="cyan" if i == 0 else "")
    for row in rows:
        made.add_row(*(Text(c) for c in row))
    Console(highlight=False).print(Padding(made, (0, 0, 0, indent)))
