"""`metrics.csv`: the record of a run as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from distillctl.api.options import Options
from distillctl.api.series import flat
from distillctl.api.tracker import RunStart, Tracker
from distillctl.files import write_text


class CSVOptions(Options):
    """Options of `csv`."""

    separator: Literal[",", ";", "\t"] = ","
    """Between two cells. Spreadsheets of countries with a decimal comma want `;`."""


class CSVTracker(Tracker):
    """Writes the whole table after every epoch, so that a column that comes late stands in the head too."""

    def __init__(self, options: CSVOptions) -> None:
        super().__init__(options)
        self._rows: list[dict[str, Any]] = []
        self._path = Path()

    def begin(self, run: RunStart) -> None:
        self._path = run.path / "metrics.csv"
        self._rows = [dict(flat(record)) for record in run.records]

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._rows.append(dict(flat(record)))
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", delimiter=self.options.separator, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self._path, text.getvalue())
