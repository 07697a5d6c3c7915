from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from distillctl.api.tracker import RunStart
from distillctl.builtin.csv_tracker import CSVOptions, CSVTracker
from distillctl.testing import TrackerContract, make_task
from distillctl.testing.trackers import RECORDS


def start(path: Path, records: Any = ()) -> RunStart:
    task = make_task()
    return RunStart(path, "a", {}, "made up", "resnet8", "kd", (("main", 3),), 9, "cpu", task.metric, task.names, task.show, records)


class TestContract(TrackerContract):
    spec = "csv"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_line_for_each_epoch_under_one_head(tmp_path: Path, separator: str) -> None:
    tracker = CSVTracker(CSVOptions(separator=separator))  # type: ignore[arg-type]
    tracker.begin(start(tmp_path))
    for record in RECORDS:
        tracker.epoch(record)
    with (tmp_path / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=separator))
    assert len(rows) == len(RECORDS)
    assert [row["phase"] for row in rows] == ["ft.paraphraser", "main", "main"]
    assert [row["val.top1"] for row in rows] == ["", "0.5", "0.75"]
    assert rows[1]["terms.task"] == "2.0"


def test_a_run_that_goes_on_has_the_lines_of_before(tmp_path: Path) -> None:
    straight = CSVTracker(CSVOptions())
    (tmp_path / "a").mkdir()
    straight.begin(start(tmp_path / "a"))
    for record in RECORDS:
        straight.epoch(record)
    again = CSVTracker(CSVOptions())
    (tmp_path / "b").mkdir()
    again.begin(start(tmp_path / "b", RECORDS[:2]))
    again.epoch(RECORDS[2])
    assert (tmp_path / "a" / "metrics.csv").read_text() == (tmp_path / "b" / "metrics.csv").read_text()
