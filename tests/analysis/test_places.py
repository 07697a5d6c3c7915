"""Runs by the words that somebody writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillctl.analysis.places import named_runs
from distillctl.errors import ProfileError
from distillctl.rundir.directory import RunDirectory


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("alone", "sweep/kd-0", "sweep/kd-1", "sweep/none-0"):
        RunDirectory.create(tmp_path / "runs" / name, profile=b"", resolved="", environment={}, state={"name": name, "digest": ""})
    (tmp_path / "runs" / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return Path("runs")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], {"alone", "kd-0", "kd-1", "none-0"}),
        (["runs/alone"], {"alone"}),
        (["alone"], {"alone"}),
        (["sweep"], {"kd-0", "kd-1", "none-0"}),
        (["runs/sweep/kd-*"], {"kd-0", "kd-1"}),
        (["sweep/*-0", "alone"], {"kd-0", "none-0", "alone"}),
        (["sweep", "runs/sweep/kd-0"], {"kd-0", "kd-1", "none-0"}),
    ],
    ids=lambda value: str(sorted(value)),
)
def test_folders_runs_patterns_and_names_below_runs(root: Path, names: list[str], found: set[str]) -> None:
    runs = named_runs(names, root).runs
    assert {run.path.name for run in runs} == found
    assert len(runs) == len(found)


def test_all_names_that_lead_nowhere_are_told(root: Path) -> None:
    with pytest.raises(ProfileError) as caught:
        named_runs(["alnoe", "empty", "runs/empty", "sweep", "x*", "a\0b"], root)
    told = [(problem.message, problem.hint) for problem in caught.value.problems]
    assert told[0] == ("there is no run `alnoe`", "did you mean `alone`?")
    assert told[1][0] == "there is no run in `runs/empty`"
    assert told[2][0] == "there is no run in `runs/empty`"
    assert told[3][0] == "there is no run `x*`"
    assert len(told) == 5
