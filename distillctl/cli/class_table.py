"""Figures of every class as a file: CSV for spreadsheets, or one page of HTML. Names of classes are somebody's folders, and are escaped."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distillctl.errors import MachineError, ProfileError
from distillctl.files import write_text
from distillctl.text import counted, csv_cell, html_text

if TYPE_CHECKING:
    from distillctl.commands.evaluate import Report

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2rem; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }}
th:first-child, td:first-child {{ text-align: left; overflow-wrap: anywhere; max-width: 40rem; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{facts}</p>
<table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</body>
</html>
"""


def check_target(path: Path) -> None:
    """Says before anything is computed whether the file can be what it is asked to be.

    Raises:
        ProfileError: it has another ending, is a folder, or would lie in a folder that is not there.
    """
    if path.suffix.lower() not in _FORMS:
        raise ProfileError(f"`{path}` ends neither in `.csv` nor in `.html`", where="--classes")
    if path.is_dir():
        raise ProfileError(f"`{path}` is a folder", where="--classes")
    if not path.parent.is_dir():
        raise ProfileError(f"there is no folder `{path.parent}`", where="--classes")


def columns(report: Report) -> tuple[str, ...]:
    """What the cells of `rows` are."""
    figures = ("correct", "accuracy") if "correct" in report.classes[0] else tuple(report.class_figures.values())
    return "name", report.counts, *figures


def rows(report: Report) -> Iterator[tuple[str, int, *tuple[float | None, ...]]]:
    """For every class its name, how many there are, and their figures from 0 to 1; None where one means nothing.

    The figures are those of `Task.class_figures`; where answers to images are right or wrong, the number of right ones and their share.
    """
    for line in report.classes:
        name, count = line["name"], line["count"]
        if "correct" in line:
            yield name, count, line["correct"], line["correct"] / count if count else None
        else:
            yield name, count, *(line.get(key) for key in report.class_figures)


def write_classes(path: Path, report: Report) -> None:
    """Writes a line for every class, as `rows` has it.

    Raises:
        MachineError: the file cannot be written.
    """
    try:
        write_text(path, _FORMS[path.suffix.lower()](report))
    except OSError as error:
        raise MachineError(f"`{path}` cannot be written: {(error.strerror or str(error)).lower()}") from error


def csv_text(head: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> str:
    """A table as CSV; None is an empty cell."""
    text = io.StringIO()
    # All text in quotes, since in some countries a spreadsheet separates by `;`, which would begin another cell within a name.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    for row in (head, *rows):
        writer.writerow([csv_cell(cell) if isinstance(cell, str) else "" if cell is None else cell for cell in row])
    return text.getvalue()


def _csv(report: Report) -> str:
    return csv_text(columns(report), rows(report))


def _html(report: Report) -> str:
    figures = ", ".join(f"{words} {text}" for words, text in report.shown)
    facts = f"{report.split}, {counted(int(report.figures['count']), 'image')}; {figures}"
    lines = (f"<tr><td>{html_text(name)}</td>{''.join(map(_cell, figures))}</tr>" for name, *figures in rows(report))
    return _PAGE.format(
        title=html_text(f"{report.called} ({report.checkpoint})"),
        facts=html_text(facts),
        head="".join(f"<th>{column}</th>" for column in columns(report)),
        rows="\n".join(lines),
    )


def _cell(figure: float | None) -> str:
    return f"<td>{'–' if figure is None else figure if isinstance(figure, int) else f'{figure:.2%}'}</td>"


_FORMS = {".csv": _csv, ".html": _html, ".htm": _html}
