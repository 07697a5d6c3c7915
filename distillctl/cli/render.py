"""Prints what commands have to say: tables with colour on a terminal, plain text elsewhere. Only this module knows rich."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer

from distillctl.text import json_text, one_line


def on_terminal() -> bool:
    """Whether a person reads along."""
    return sys.stdout.isatty()


def line(text: str = "") -> None:
    """One line."""
    typer.echo(one_line(text))


def heading(text: str) -> None:
    """A line that stands over others."""
    typer.secho(one_line(text), bold=True) if on_terminal() else line(text)


def as_json(data: Any) -> None:
    """Data for scripts."""
    typer.echo(json_text(data))


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, indent: int = 0) -> None:
    """A table with columns side by side; the last column wraps on a terminal. Empty columns are left out."""
    cells = [[one_line(c) for c in row] for row in rows]
    used = [i for i in range(len(headers)) if any(row[i] for row in cells)]
    headers, cells = [headers[i] for i in used], [[row[i] for i in used] for row in cells]
    if not cells:
        return
    if on_terminal():
        _rich_table(headers, cells, indent)
        return
    widths = [max(len(row[i]) for row in [list(headers), *cells]) for i in range(len(headers))]
    for row in [list(headers), *cells]:
        typer.echo((" " * indent + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True))).rstrip())


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
