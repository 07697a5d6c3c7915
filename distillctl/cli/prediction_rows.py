"""Predictions as rows: CSV for spreadsheets, JSON lines, columns between tabs for other programs, and what fits on a line of a terminal.

Classes stand beside their image, boxes each in a row of its own; an image without a box has a row without one.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, TextIO

from distillctl.cli import coco_results
from distillctl.text import csv_cell, json_text, one_line

if TYPE_CHECKING:
    from distillctl.commands.predict import Prediction


def write_csv(file: TextIO, predictions: Iterable[Prediction], *, top: int, **_: object) -> None:
    """Writes the columns `path`, `label`, `probability`, `label_2`, … and `error`.

    top: answers to each image.
    """
    _write_csv(file, chain([_columns(top)], (_cells(one, top) for one in predictions)))


def write_box_csv(file: TextIO, predictions: Iterable[Prediction], **_: object) -> None:
    """Writes the columns of `BOX_COLUMNS`, a row for each box."""
    _write_csv(file, chain([BOX_COLUMNS], (row for one in predictions for row in _box_rows(one))))


def write_json(file: TextIO, predictions: Iterable[Prediction], **_: object) -> None:
    """Writes a prediction as an object on a line of its own."""
    file.writelines(json_line(one) + "\n" for one in predictions)


def _write_csv(file: TextIO, rows: Iterable[Iterable[str | float]]) -> None:
    # All text in quotes, since in some countries a spreadsheet separates by `;`, which would begin another cell within a name.
    writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerows([cell if isinstance(cell, float) else csv_cell(cell) for cell in row] for row in rows)


def json_line(one: Prediction) -> str:
    """`{"path": …, "answers": [{"class": …, "probability": …}, …]}`, with `"error"` where there is no answer. Of a detector an answer is
    `{"class": …, "score": …, "box": [left, top, right, bottom]}`.
    """
    answers: list[dict[str, Any]] = [{"class": name, "probability": share} for name, share in one.answers]
    if one.boxes:
        answers = [{"class": name, "score": score, "box": box} for (name, score), box in zip(one.answers, one.boxes, strict=True)]
    row: dict[str, Any] = {"path": one.path, "answers": answers}
    return json_text({**row, "error": one.error} if one.error else row, indent=None)


def tab_line(one: Prediction, top: int) -> str:
    """The cells of the CSV file between tabs, as they are: what reads them is not a spreadsheet."""
    return _tabs(_cells(one, top))


def box_lines(one: Prediction) -> list[str]:
    """The same of each box."""
    return [_tabs(row) for row in _box_rows(one)]


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


BOX_COLUMNS = ("path", "label", "score", "left", "top", "right", "bottom", "error")
"""Of a box, whose sides are in pixels of the upright picture."""
FILES: Mapping[str, Callable[..., None]] = {".csv": write_csv, ".jsonl": write_json}
"""Endings of files, and what writes predictions into them."""
BOX_FILES: Mapping[str, Callable[..., None]] = {".csv": write_box_csv, ".jsonl": write_json, ".json": coco_results.write}
"""The same of a detector."""


def _box_rows(one: Prediction) -> list[tuple[str | float, ...]]:
    rows = [(one.path, name, score, *box, "") for (name, score), box in zip(one.answers, one.boxes, strict=True)]
    return [*rows] or [(one.path, *[""] * (len(BOX_COLUMNS) - 2), one.error)]


def _tabs(cells: Iterable[str | float]) -> str:
    return "\t".join(one_line(cell) for cell in cells)


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
