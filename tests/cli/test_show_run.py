"""`show RUN` tells what the run is and ends like the last screen of `train`."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distillctl.cli import run
from distillctl.cli.costs import print_costs
from distillctl.cli.show_run import _teacher
from distillctl.rundir.directory import RunDirectory

TEACHER = """
seed = 3
[dataset]
name = "digits"
limit = 60
[student]
name = "resnet8"
[train]
epochs = 1
"""
STUDENT = TEACHER + '[teacher]\nprofile = "teacher.toml"\nallow_untrained = true\n[method]\nname = "kd"\n'


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with a finished run, and what its training printed at the end."""
    folder = tmp_path_factory.mktemp("show")
    (folder / "teacher.toml").write_text(TEACHER)
    (folder / "student.toml").write_text(STUDENT)
    out = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out):
        assert run(["train", "student.toml", "--device", "cpu", "--quiet"]) == 0
    return folder, out.getvalue().splitlines()


@pytest.fixture
def name(trained: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(trained[0])
    (path,) = Path("runs").glob("student-*")
    return str(path)


def test_what_it_is_and_the_last_screen(name: str, trained: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    head, facts, figures = lines[0], lines[1:7], lines[8:]
    assert head == f"run {name}: finished, 1 epoch"
    told = [line.split(maxsplit=1) for line in facts]
    assert told[:3] == [["student", "cifar/resnet8"], ["teacher", "profile teacher.toml"], ["method", "kd"]]
    assert told[3][1].startswith("digits: scikit-learn's digits: train ")
    assert told[4] == ["seed", "3"]
    assert told[5][0] == "begun"
    assert figures == trained[1]
    assert [line.split()[0] for line in figures[-7:-3]] == ["size", "parameters", "MACs", "ms"]


def test_as_json_without_torch(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = f"import sys\nfrom distillctl.cli import run\nrun(['show', {name!r}, '--json'])\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    text, _, torch = done.stdout.rstrip().rpartition("\n")
    told = json.loads(text)
    assert torch == "False"
    assert (told["state"], told["epoch"], told["epochs"], told["seed"]) == ("finished", 1, 1, 3)
    assert (told["student"], told["teacher"], told["method"]) == ("cifar/resnet8", "profile teacher.toml", "kd")
    assert told["result"] == json.loads(Path(name, "run.json").read_text())["result"]
    assert told["last_epoch"]["epoch"] == 1


def test_a_run_that_is_not_finished(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(name, "runs/half")
    RunDirectory(Path("runs/half")).update(state="running", epoch=1, epochs=4, result={})
    Path("runs/half/model.json").unlink()
    assert run(["show", "runs/half"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run runs/half: not finished, 1 of 4 epochs"
    assert lines[-3].startswith("last       top-1 ")
    assert lines[-3].endswith(" on val (epoch 1)")
    assert lines[-2:] == ["best       epoch 1", "go on      by the `distillctl train` command that began it"]
    shutil.rmtree("runs/half")


def test_names_that_are_no_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", name[:-1]]) == 2
    assert capsys.readouterr().err == f"error: there is no run directory `{name[:-1]}`\n\nhint: did you mean `{name}`?\n"
    assert run(["show", Path(name).name]) == 2
    assert f"did you mean `{name}`?" in capsys.readouterr().err
    assert run(["show", "runs"]) == 2
    assert "`runs` is not a run directory" in capsys.readouterr().err
    assert run(["show", name, "--bibtex"]) == 2
    assert "is a run, which has no paper" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({}, None),
        ({"name": "torchvision/resnet50", "weights": "IMAGENET1K_V1"}, "torchvision/resnet50, weights IMAGENET1K_V1"),
        ({"name": "vgg13", "checkpoint": "my.pth"}, "vgg13, checkpoint my.pth"),
        ({"run": "{here}/runs/a"}, "run runs/a"),
        ({"run": "/elsewhere/runs/a"}, "run /elsewhere/runs/a"),
    ],
)
def test_teachers(table: dict[str, str], expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert _teacher({key: value.replace("{here}", str(tmp_path)) for key, value in table.items()}) == expected


def test_costs_of_older_runs_and_of_what_could_not_be_timed(capsys: pytest.CaptureFixture[str]) -> None:
    print_costs({})
    assert capsys.readouterr().out == ""
    print_costs({"result": {"parameters": {"student": 1000, "teacher": 2500}}})
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["size", "student", "teacher"],
        ["parameters", "1,000", "2,500", "2.5", "times", "as", "many"],
    ]
    timed = {"parameters": 10, "macs": 2e9, "ms": 5.0, "device": "cuda", "threads": 8}
    methods = {"parameters": 1500, "macs": 2_500_000}
    print_costs({"costs": {"student": timed, "methods": methods, "forwards": {"student": 9}, "images": 9}})
    assert capsys.readouterr().out.splitlines()[-1] == "methods    1,500 parameters, 2.50 M MACs an image, in training alone"
    print_costs({"costs": {"student": timed, "methods": {"parameters": 0, "macs": 0}}})
    assert "methods" not in capsys.readouterr().out
    print_costs({"costs": {"student": timed, "teacher": {"parameters": 20}}})
    assert [line.split() for line in capsys.readouterr().out.splitlines()[2:]] == [
        ["MACs", "2.00", "G"],
        ["ms", "5.00", "one", "image", "on", "cuda"],
    ]
