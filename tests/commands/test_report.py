"""`report`: which runs are meant, where the page goes, plots, and how long many runs take."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from distillctl.cli import run
from distillctl.commands.report import report
from distillctl.errors import DataError, DistillError, MachineError, ProfileError
from distillctl.pages import plots

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def made(make_run: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, its control, and a sweep of two."""
    runs = tmp_path_factory.mktemp("made")
    make_run(runs / "one")
    make_run(runs / "alone", method="none", top1=0.5)
    for temperature in (1.0, 4.0):
        make_run(runs / "sweep" / f"{temperature:g}", temperature=temperature, answers=False)
    return runs


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with these runs below `runs`."""
    shutil.copytree(made, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("names", "path", "count"),
    [
        (["runs/one"], "runs/one/report.html", 1),
        (["one"], "runs/one/report.html", 1),
        (["runs/sweep"], "runs/sweep/report.html", 2),
        (["sweep"], "runs/sweep/report.html", 2),
        (["runs"], "runs/report.html", 4),
        (["runs/one", "runs/alone"], "report.html", 2),
        (["runs/sweep/*"], "report.html", 2),
    ],
    ids=str,
)
def test_which_runs_and_where(place: Path, names: list[str], path: str, count: int) -> None:
    written = report(names)
    assert (written.path, written.runs) == (Path(path), count)
    assert Path(path).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_single_run_stands_beside_its_control(place: Path) -> None:
    assert "gain over the control" in report("runs/one").path.read_text(encoding="utf-8")
    assert "gain over the control" not in report("runs/alone").path.read_text(encoding="utf-8")


def test_without_a_name_the_newest_finished_run(place: Path, make_run: Make) -> None:
    make_run(Path("runs/newest"))
    make_run(Path("runs/going"), finished=False)
    assert report().path == Path("runs/newest/report.html")


def test_a_damaged_run_is_told_and_the_others_are_shown(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/sweep/1/run.json").write_text("{")
    assert run(["report", "runs/sweep", "--out", "x.html"]) == 0
    out, err = capsys.readouterr()
    assert out == "report     x.html (1 run)\n"
    assert "note: `runs/sweep/1` is left out: " in err
    with pytest.raises(DataError, match="cannot be read"):
        report("runs/sweep/1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs/nowhere"], "there is no run `runs/nowhere`"),
        (["runs/one", "--out", "x.txt"], "`x.txt` does not end in `.html`"),
        (["runs/one", "--out", "no/x.html"], "there is no folder `no`"),
        (["runs/one", "--plots", "gif"], "`gif` is not a format of plots"),
    ],
    ids=str,
)
def test_mistakes(place: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not Path("runs/one/report.html").exists()


def test_teachers_and_missing_cells_of_a_sweep_are_told(place: Path, make_run: Make) -> None:
    teacher = make_run(Path("runs/sweep/teacher"), method="none", answers=False)
    make_run(Path("runs/sweep/8"), temperature=8.0, answers=False, info={"teacher_run": str(teacher.absolute())})
    cell = {"name": "kd, temperature 16", "seed": 0, "run": "16", "state": "failed"}
    Path("runs/sweep/sweep.json").write_text(json.dumps({"cells": [cell]}))
    written = report("runs/sweep")
    assert (written.runs, len(written.notes)) == (3, 2)
    assert written.notes[0].startswith("`runs/sweep/teacher` left out: the teacher of others")
    assert "1 run of the sweep `runs/sweep` not there: `kd, temperature 16` (failed)" in written.notes
    assert written.notes[1] in written.path.read_text(encoding="utf-8")


def test_json_alone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "runs/one", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"path": "runs/one/report.html", "runs": 1, "notes": [], "plots": []}


def test_no_finished_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no finished run below"):
        report(root=tmp_path)


@pytest.mark.slow
def test_plots_of_a_run_and_of_a_grid(place: Path, make_run: Make) -> None:
    pytest.importorskip("matplotlib")
    written = report("runs/one", plots="svg")
    assert sorted(path.name for path in written.plots) == [
        *("agreement-with-the-teacher.svg", "learning-rate.svg", "loss-2.svg", "loss.svg", "seconds-of-an-epoch.svg", "top-1.svg")
    ]
    text = written.plots[1].read_text(encoding="utf-8")
    assert ">epoch<" in text, "letters stay letters"
    assert ">control<" in text
    before = [path.read_bytes() for path in written.plots]
    assert [path.read_bytes() for path in report("runs/one", plots="svg").plots] == before, "the same plot is the same file"
    for other in (1.0, 4.0):
        for temperature in (1.0, 4.0):
            make_run(Path(f"runs/grid/{temperature:g}-{other:g}"), temperature=temperature, other=other, answers=False)
    names = [path.name for path in report("runs/grid", plots="png").plots]
    assert "kd-method-temperature-method-other.png" in names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in Path("runs/grid/plots").iterdir())


def test_names_with_formulas_are_plain(place: Path, make_run: Make) -> None:
    pytest.importorskip("matplotlib")
    run = make_run(Path("runs/dollar"), terms=("task", r"$\evil$"), epochs=1)
    text = report(run, plots="svg").plots[0].read_text(encoding="utf-8")
    assert r"$\evil$" in text


def test_without_matplotlib_the_extra_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match="plots need `matplotlib`") as caught:
        report("runs/one", plots="svg")
    assert "pip install 'distillctl[analysis]'" in str(caught.value)
    assert not Path("runs/one/report.html").exists(), "it is said before anything is written"


def test_a_folder_that_cannot_be_written(place: Path) -> None:
    Path("runs/one/report.html").mkdir()
    with pytest.raises(DistillError, match="cannot be written"):
        report("runs/one")


def test_it_needs_neither_torch_nor_matplotlib(place: Path) -> None:
    code = "import sys; from distillctl.cli import run; code = run(['report', 'runs/one']); run(['report', 'runs/sweep'])\n"
    code += "print(code, [name for name in ('torch', 'matplotlib', 'scipy', 'pandas') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.slow
def test_five_hundred_runs_take_seconds(make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 5 s of an idle processor: measured as time of the processor, since others use the machine, too."""
    monkeypatch.setattr(os, "fsync", lambda file: None)  # to make them
    for i in range(500):
        make_run(tmp_path / "many" / str(i), seed=i % 5, epochs=60, answers=False, temperature=float(i // 5))
    begun = time.process_time()
    written = report(tmp_path / "many")
    assert time.process_time() - begun < 4
    assert written.runs == 500
    assert written.path.stat().st_size < 1.5e6


@pytest.mark.parametrize("names", [["\0"], ["x" * 5000]], ids=["nul", "long"])
def test_names_that_no_folder_can_have(place: Path, names: list[str]) -> None:
    with pytest.raises(ProfileError):
        report(names)
