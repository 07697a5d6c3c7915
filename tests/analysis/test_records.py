"""Runs are read as they lie there, without torch: finished, running, older and damaged ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distillctl.analysis.records import RunRecord, find_runs
from distillctl.errors import DataError
from distillctl.rundir.directory import RunDirectory

RESOLVED = """seed = 7
[dataset]
name = "digits"
[student]
name = "resnet8"
[teacher]
profile = "teachers/big.toml"
[[method]]
name = "kd"
[train]
epochs = 3
"""
SHOWN = {"metric": "map", "names": {"map": "AP"}, "percent": ["map"]}


def made(path: Path, *, finished: bool = True, **facts: Any) -> Path:
    """A run of three epochs, of which the second was the best."""
    state = {"name": "small", "digest": "", "method": "kd", "epochs": 3, "epoch": 3, "best_epoch": 2, "seconds": 12.5, **facts}
    run = RunDirectory.create(path, profile=b"", resolved=RESOLVED, environment={"versions": {}}, state=state)
    for number, top1 in enumerate((0.5, 0.75, 0.625), start=1):
        run.append({"phase": "main", "epoch": number, "val": {"top1": top1, "loss": 1.0}})
    if finished:
        result = {"split": "test", "best": {"epoch": 2, "top1": 0.7, "loss": 0.9}, "last": {"epoch": 3, "top1": 0.6, "loss": 1.1}}
        run.update(state="finished", result=result)
    return path


def test_what_a_run_says(tmp_path: Path) -> None:
    run = RunRecord.read(made(tmp_path / "a", teacher="resnet56"))
    assert (run.name, run.state, run.finished, run.method) == ("small", "finished", True, "kd")
    assert (run.student, run.teacher, run.data, run.seed) == ("resnet8", "resnet56", "digits", 7)
    assert (run.epoch, run.epochs, run.best_epoch, run.seconds, run.split) == (3, 3, 2, 12.5, "test")
    assert run.created is not None
    assert run.created.tzinfo is not None
    assert run.identity["student.name"] == "resnet8"
    assert run.size == sum(p.stat().st_size for p in run.path.rglob("*") if p.is_file())
    assert [line["epoch"] for line in run.history] == [1, 2, 3]


def test_figures_of_the_result_and_of_the_epochs(tmp_path: Path) -> None:
    run = RunRecord.read(made(tmp_path / "a"))
    assert run.figures("test") == {"top1": 0.7, "loss": 0.9}
    assert run.figures("test", "last") == {"top1": 0.6, "loss": 1.1}
    assert run.figures("val")["top1"] == 0.75
    assert run.figures("val", "last")["top1"] == 0.625
    assert run.figures("train") == {}
    going = RunRecord.read(made(tmp_path / "b", finished=False, best_epoch=1))
    assert (going.figures("test"), going.figures("val")["top1"], going.split) == ({}, 0.5, "")


def test_a_phase_is_not_the_last_epoch(tmp_path: Path) -> None:
    path = made(tmp_path / "a")
    RunDirectory(path).append({"phase": "ft.first", "epoch": 9, "val": {"top1": 0.0}})
    assert RunRecord.read(path).figures("val", "last")["top1"] == 0.625


def test_older_runs_say_less(tmp_path: Path) -> None:
    old, new = RunRecord.read(made(tmp_path / "a")), RunRecord.read(made(tmp_path / "b", shown=SHOWN))
    assert (old.metric, old.show("top1", 0.5), old.show("loss", 0.5), old.teacher) == ("top1", "50.00%", "0.5000", "big")
    assert (new.metric, new.show("map", 0.5), new.names) == ("map", "50.00%", {"map": "AP"})


def test_runs_are_found_at_any_depth_the_newest_first_and_damaged_ones_are_named(tmp_path: Path) -> None:
    first, second, third = (made(tmp_path / name) for name in ("a", "sweep/deep/b", "c"))
    for age, path in enumerate((third, second, first)):
        os.utime(path / "run.json", (1000 - age, 1000 - age))
    made(first / "inside")  # what lies in a run is its own
    (made(tmp_path / "bad") / "run.json").write_text("{")
    found = find_runs([tmp_path, first])
    assert [run.path for run in found.runs] == [third, second, first]
    assert [(path.name, "cannot be read" in why) for path, why in found.damaged] == [("bad", True)]
    assert find_runs([tmp_path / "nowhere"]) == ([], [])


@pytest.mark.parametrize("file", ["run.json", "resolved.toml"])
def test_a_run_that_was_changed_is_refused(tmp_path: Path, file: str) -> None:
    path = made(tmp_path / "a")
    text = (path / file).read_text()
    (path / file).write_text(text.replace("3", "4"))
    with pytest.raises(DataError, match="was changed by somebody else"):
        RunRecord.read(path)


def test_reading_runs_loads_no_torch(tmp_path: Path) -> None:
    made(tmp_path / "a")
    lines = ["import sys; from pathlib import Path; from distillctl.analysis.records import find_runs"]
    lines += [f"print(len(find_runs([Path({str(tmp_path)!r})]).runs), 'torch' in sys.modules)"]
    code = "\n".join(lines)
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert told.split() == ["1", "False"]
