"""`runs`: one table of all runs, what is in it, and what is said where there is none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from distillctl.cli import run
from distillctl.rundir.directory import RunDirectory
from distillctl.rundir.lock import locked

RESOLVED = 'seed = {seed}\n[dataset]\nname = "digits"\n[student]\nname = "cifar/resnet8"\n{rest}[train]\nepochs = 3\n'
DISTILLS = '[[method]]\nname = "kd"\n[teacher]\nprofile = "big.toml"\n'
SHOWN = {"metric": "top1", "names": {"top1": "top-1"}, "percent": ["top1"]}


def made(path: Path, method: str = "kd", test: float | None = 0.75, *, seed: int = 0, **facts: Any) -> Path:
    rest = DISTILLS if method != "none" else '[[method]]\nname = "none"\n'
    state = {
        "name": "a",
        "digest": "",
        "method": method,
        "shown": SHOWN,
        "epochs": 3,
        "epoch": 2,
        "best_epoch": 1,
        "seconds": 3725,
        **facts,
    }
    made = RunDirectory.create(path, profile=b"", resolved=RESOLVED.format(seed=seed, rest=rest), environment={}, state=state)
    for number in (1, 2):
        made.append({"phase": "main", "epoch": number, "val": {"top1": 0.5 / number}})
    if test is not None:
        made.update(state="finished", result={"split": "test", "best": {"epoch": 1, "top1": test}, "last": {"epoch": 3, "top1": 0.5}})
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    made(tmp_path / "runs" / "one-kd", teacher="resnet56")
    made(tmp_path / "runs" / "sweep" / "two-none", "none", 0.7)
    made(tmp_path / "runs" / "three", "at", None, seed=1)
    for age, path in enumerate(("three", "sweep/two-none", "one-kd")):
        os.utime(tmp_path / "runs" / path / "run.json", (1000 - age, 1000 - age))
    return tmp_path


def lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert run(["runs", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_what_each_run_is_and_reached(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head, three, two, one, count = lines(capsys)
    assert head.split() == ["run", "data", "teacher", "student", "method", "seed", "epochs", "state", "val", "test", "last", "gain", "time", "size", "begun"]  # fmt: skip # noqa: E501
    assert one.split()[:12] == ["one-kd", "digits", "resnet56", "resnet8", "kd", "0", "3", "50.00%", "75.00%", "50.00%", "+5.00", "1:02:05"]
    assert two.split()[:5] == ["sweep/two-none", "digits", "resnet8", "none", "0"]
    assert "stopped at 2" in three
    assert "50.00%" in three
    assert "+" not in two + three
    assert count == "3 runs, 1 of them not finished"


def test_the_control_is_found_though_it_is_not_listed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads("\n".join(lines(capsys, "one-kd", "--json")))
    assert [row["run"] for row in found] == ["runs/one-kd"]
    assert found[0]["gain"] == pytest.approx(0.05)
    assert found[0]["control"] == "runs/sweep/two-none"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("--sort", "test"), ["one-kd", "sweep/two-none", "three"]),
        (("--sort", "method"), ["three", "one-kd", "sweep/two-none"]),
        (("KD",), ["one-kd"]),
        (("*one*",), ["sweep/two-none", "one-kd"]),
        (("stopped",), ["three"]),
        (("zzz",), []),
        (("resnet8", "stopped"), ["three"]),
        (("runs/sweep",), ["sweep/two-none"]),
    ],
    ids=str,
)
def test_which_runs_and_in_which_order(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], names: list[str]
) -> None:
    if not names:
        assert run(["runs", *arguments]) == 2
        assert "no run fits `zzz`" in capsys.readouterr().err
        return
    assert [line.split()[0] for line in lines(capsys, *arguments)[1:-1]] == names


def test_a_name_that_no_folder_can_have_is_a_pattern(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "x" * 300]) == 2
    assert "no run fits `xxx" in " ".join(capsys.readouterr().err.split())  # the message is wrapped


def test_one_that_is_trained_now_is_running(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(place / "runs" / "three"):
        assert "running at 2" in "\n".join(lines(capsys))
    assert "stopped at 2" in "\n".join(lines(capsys))


def test_a_narrow_terminal_has_one_line_for_each_run(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found = lines(capsys)
    assert len(found) == 5
    assert max(map(len, found)) <= 80
    assert {"run", "method", "val", "test"} <= set(found[0].split())


def test_damaged_runs_are_named_and_nothing_is_an_error(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "runs" / "three" / "run.json").write_text("{")
    assert run(["runs"]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == "2 runs"
    assert "left out: runs/three: `runs/three/run.json` cannot be read" in told.err
    assert run(["runs", "--sort", "speed"]) == 2
    assert "there is no column `speed`" in capsys.readouterr().err
    os.chdir(place / "runs" / "sweep" / "two-none")
    assert run(["runs"]) == 2
    assert "there is no run below `runs`" in capsys.readouterr().err
