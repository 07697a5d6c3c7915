"""Which run is the control of another: one that differs in what it distils, and in nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from distillctl.analysis.control import control_beside
from distillctl.builtin.classification_task import Classification
from distillctl.cli.train import print_result
from distillctl.commands.train import Result
from distillctl.rundir.directory import RunDirectory

RESOLVED = 'seed = {seed}\n[student]\nname = "resnet8"\n{rest}[train]\nepochs = 3\nworkers = {workers}\n'
DISTILLS = '[[method]]\nname = "kd"\nweight = 0.9\n[teacher]\nprofile = "teacher.toml"\n'
LABELS = '[[method]]\nname = "none"\n'
RESULT = {
    "split": "test",
    "best": {"epoch": 3, "top1": 0.75},
    "last": {"epoch": 3, "top1": 0.75},
    "chosen_on": "val",
    "chance": 0.25,
    "floor": 0.3,
}
PACKAGES = {"distillctl": "1", "torch": "2"}


def made(path: Path, method: str, *, seed: int = 0, workers: int = 0, finished: bool = True, **facts: Any) -> RunDirectory:
    """A run without checkpoints, as far as it is read."""
    result = facts.pop("result", RESULT)
    rest = LABELS if method == "none" else DISTILLS
    common = {"method": method, "name": "a", "digest": "", "data_listing": {"train": "9 images"}, "packages": PACKAGES, "processes": 1}
    run = RunDirectory.create(
        path, profile=b"", resolved=RESOLVED.format(seed=seed, workers=workers, rest=rest), environment={}, state={**common, **facts}
    )
    run.update(state="finished" if finished else "running", result=result)
    return run


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return made(tmp_path / "runs" / "a-1", "kd", packages={**PACKAGES, "distillctl-dkd": "1"})


def test_one_beside_it_that_learnt_from_labels_alone(run: RunDirectory) -> None:
    assert control_beside(run.path) is None
    control = made(run.path.with_name("a-2"), "none", workers=4)  # which changes nothing
    found = control_beside(run.path)
    assert found is not None
    assert found.path == control.path
    assert control_beside(control.path) is None, "a control has none"
    newer = made(run.path.with_name("a-3"), "none")
    os.utime(control.path / "run.json", (1, 1))
    assert control_beside(run.path).path == newer.path  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"finished": False},
        {"data_listing": {"train": "8 images"}},
        {"processes": 2},
        {"packages": {**PACKAGES, "torch": "3"}},
        {"changes": [{"changes": ["the data"]}]},
        {"method": "kd"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_nothing_else_may_differ(run: RunDirectory, other: dict[str, Any]) -> None:
    made(run.path.with_name("a-2"), **{"method": "none", **other})
    assert control_beside(run.path) is None


def test_damaged_runs_are_passed_over(run: RunDirectory) -> None:
    broken, edited = (made(run.path.with_name(name), "none") for name in ("a-2", "a-3"))
    (broken.path / "run.json").write_text("{")
    with edited.resolved.open("a") as file:
        file.write("# edited\n")
    assert control_beside(run.path) is None


@pytest.mark.parametrize(
    ("alone", "line"),
    [
        (0.7, "control    70.00% from labels alone, 5.00 points less: "),
        (0.76, "control    76.00% from labels alone, 1.00 points more: "),
        (0.75, "control    75.00% from labels alone, the same: "),
    ],
)
def test_the_last_screen_compares(run: RunDirectory, alone: float, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    control = made(run.path.with_name("a-2"), "none", result={**RESULT, "best": {"epoch": 2, "top1": alone}})
    figures = {"epoch": 3, "top1": 0.75, "top5": 1.0, "mpa": 0.75}
    print_result(Result(run.path, False, Classification, {**RESULT, "best": figures, "last": figures}))
    out = capsys.readouterr().out
    assert f"{line}{control.path}\n" in out
    assert "gain       50.00 points over chance, which reaches 25.00%\n" in out


def test_another_split_is_not_compared(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    made(run.path.with_name("a-2"), "none", result={**RESULT, "split": "val"})
    figures = {"epoch": 3, "top1": 0.75, "top5": 1.0, "mpa": 0.75}
    print_result(Result(run.path, False, Classification, {**RESULT, "best": figures, "last": figures}))
    assert "control" not in capsys.readouterr().out
