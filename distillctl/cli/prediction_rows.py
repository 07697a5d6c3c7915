"""Predictions as rows: CSV for spreadsheets, JSON lines, columns between tabs for other programs, and what fits on a line of a terminal."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

from distillctl.text import csv_cell, json_text, one_line

if TYPE_CHECKING:
    from distillctl.commands.predict import Prediction


def csv_writer(file: TextIO, top: int) -> Callable[[Prediction], object]:
    """Writes the columns `path`, `label`, `probability`, `label_2`, … and `error`; returns what writes a prediction.

    top: answers to each image.
    """
    # All text in quotes, since in some countries a spreadsheet separates by `;`, which would begin another cell within a name.
    writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(_columns(top))
    return lambda one: writer.writerow([cell if isinstance(cell, float) else csv_cell(cell) for cell in _cells(one, top)])


def json_writer(file: TextIO, _top: int) -> Callable[[Prediction], object]:
    """Returns what writes a prediction as an object on a line of its own."""
    return lambda one: file.write(json_line(one) + "\n")


def json_line(one: Prediction) -> str:
    """`{"path": …, "answers": [{"class": …, "probability": …}, …]}`, with `"error"` where there is no answer."""
    answers = [{"class": name, "probability": share} for name, share in one.answers]
    row: dict[str, Any] = {"path": one.path, "answers": answers}
    return json_text({**row, "error": one.error} if one.error else row, indent=None)


def tab_line(one: Prediction, top: int) -> str:
    """The cells of the CSV file between tabs, as they are: what reads them is not a spreadsheet."""
    return "\t".join(one_line(cell) for cell in _cells(one, top))


def terminal_line(one: Prediction, width: int) -> str:
    """The path and as many answers as fit into `width` columns, at least the first: `a.jpg  wren 93.1%  robin 4.0%`."""
    path = one_line(one.path)
    path = path if len(path) <= width // 2 else f"…{path[len(path) - width // 2 + 1 :]}"
    if one.error:
        return one_line(f"{path}  {one.error}", width)
    line = path
    for number, (name, share) in enumerate(one.answers):
        percent = f"{share:.1%}"
        part = f"  {one_line(name, 0 if number else max(8, width - len(path) - len(percent) - 3))} {percent}"
        if number and len(line) + len(part) > width:
            break
        line += part
    return line


FILES: dict[str, Callable[[TextIO, int], Callable[[Prediction], object]]] = {".csv": csv_writer, ".jsonl": json_writer}
"""Endings of files, and what writes them."""


def _columns(top: int) -> list[str]:
    numbers = ["", *(f"_{number}" for number in range(2, top + 1))]
    return ["path", *(f"{column}{number}" for number in numbers for column in ("label", "probability")), "error"]


def _cells(one: Prediction, top: int) -> Iterator[str | float]:
    yield one.path
    for name, share in one.answers:
        yield name
        yield share
    yield from [""] * (2 * (top - len(one.answers)))
    yield one.error
