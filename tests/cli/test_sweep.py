"""`sweep` and `train --seeds` as a user calls them. A stand-in trains (`tests/commands/test_sweep.py`), but for the last test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from distillctl.cli import run
from distillctl.cli.display import audience
from distillctl.commands import sweep_runner
from distillctl.commands.sweep import FILE, Book, plan
from distillctl.commands.train import train
from distillctl.plugin.registry import Registry
from distillctl.profile.schema import SweepTable
from distillctl.profile.sweep import settle
from distillctl.slurm.request import Request

pytestmark = pytest.mark.posix

PYTHON = sys.executable
TRAIN = Path(__file__).parents[1] / "commands" / "stand_in_train.py"
PROFILE = """
[dataset]
name = "digits"
limit = 200
[student]
name = "resnet8"
[teacher]
profile = "teacher.toml"
allow_untrained = true
[method]
name = "kd"
[optimizer]
lr = 0.05
[train]
epochs = 4
"""
TEACHER = """
[dataset]
name = "digits"
limit = 200
[student]
name = "resnet14"
[train]
epochs = 2
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a profile and its teacher's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.toml").write_text(PROFILE)
    (tmp_path / "teacher.toml").write_text(TEACHER)
    return tmp_path


@pytest.fixture
def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with the stand-in in place of what trains."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nexec "{PYTHON}" "{TRAIN}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(sweep_runner.sys, "executable", str(script))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return folder


def test_a_sweep_tells_its_runs_and_what_came_out(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ["sweep", "p.toml", "--grid", "optimizer.lr=0.2,0.5", "--control", "--out", "s"]
    assert run([*arguments, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "sweep      s: 4 runs"
    assert [line.split() for line in lines[1:3]] == [
        ["run", "seed", "state", "folder"],
        ["kd", "lr=0.2", "0", "new", next(word for word in lines[2].split() if word.startswith("kd_lr=0.2-s0-"))],
    ]
    assert lines[-1] == "time       not known before the first run is finished"
    assert not Path("s").exists()
    assert run(arguments) == 0
    out = capsys.readouterr()
    assert out.err == ""
    assert out.out.splitlines() == [
        "sweep      s: 4 runs",
        "begins     kd lr=0.2, seed 0",
        "warning    kd lr=0.2, seed 0: the teacher learnt 0 of the test images",
        "finished   kd lr=0.2, seed 0: val 76.92%, test 66.92%, 0:40 [1/4]",
        "begins     kd lr=0.5, seed 0",
        "finished   kd lr=0.5, seed 0: val 100.00%, test 90.00%, 0:40 [2/4]",
        "begins     none lr=0.2, seed 0",
        "finished   none lr=0.2, seed 0: val 76.92%, test 66.92%, 0:40 [3/4]",
        "begins     none lr=0.5, seed 0",
        "finished   none lr=0.5, seed 0: val 100.00%, test 90.00%, 0:40 [4/4]",
        "run          seeds  val top-1  test top-1",
        "kd lr=0.2    1/1    76.92%     66.92%",
        "kd lr=0.5    1/1    100.00%    90.00%",
        "none lr=0.2  1/1    76.92%     66.92%",
        "none lr=0.5  1/1    100.00%    90.00%",
        "file       s/sweep.json",
    ]
    assert run([*arguments, "--seeds", "0,1", "--dry-run"]) == 0
    out = capsys.readouterr()
    assert out.out.startswith("sweep      s: 8 runs, 4 of them finished\n")
    assert out.out.endswith("time       about 2:40 for what is missing\n")


def test_a_sweep_does_not_load_torch_itself(stand_in: Path) -> None:
    code = """
import sys
from distillctl.cli import run
sys.executable = "./python"
assert run(["sweep", "p.toml", "--grid", "optimizer.lr=0.5", "--out", "s"]) == 0
assert run(["sweep", "p.toml", "--grid", "optimizer.lr=0.5", "--out", "s", "--dry-run"]) == 0
print([name for name in ("torch", "optuna", "scipy", "submitit") if name in sys.modules])
"""
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_json_stands_alone(stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["sweep", "p.toml", "--grid", "optimizer.lr=0.5,3", "--seeds", "1", "--out", "s", "--json"]
    assert run(arguments) == 1
    out = capsys.readouterr()
    good, bad = json.loads(out.out)["rows"]
    assert (good["name"], good["values"], good["finished"], good["missing"]) == ("kd lr=0.5", {"optimizer.lr": 0.5}, [1], [])
    assert (good["metric"], good["val"], good["test"]) == ("top1", pytest.approx(1.01), pytest.approx(0.91))
    assert (bad["finished"], bad["missing"], bad["val"]) == ([], [1], None)
    assert out.err.startswith("error: `kd lr=3, seed 1` failed: the loss is not finite\n\nhint: its log is `s/logs/kd_lr=3-s1-")


def test_a_table_of_the_profile_is_a_sweep_and_train_goes_by_it(stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.toml").write_text(f'{PROFILE}[sweep]\nseeds = [0, 1]\n[sweep.grid]\n"optimizer.lr" = [0.2, 0.5]\n')
    assert run(["sweep", "p.toml", "--quiet"]) == 0
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()[1:3]] == [["kd", "lr=0.2", "2/2"], ["kd", "lr=0.5", "2/2"]]
    assert len(list(Path("runs").glob("p-sweep-*/kd_*/run.json"))) == 4
    assert run(["check", "p.toml"]) == 0
    assert "sweep: `distillctl sweep` reads [sweep]; `train` does not" in capsys.readouterr().out


def test_seeds_of_train_are_a_sweep_without_values(stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "p.toml", "--seeds", "0,2", "--set", "optimizer.lr=0.5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (place,) = Path("runs").iterdir()
    assert place.name.startswith("p-seeds-")
    assert lines[0] == f"sweep      {place}: 2 runs"
    assert lines[-3:] == ["run  seeds  val top-1  test top-1", "kd   2/2    101.00%    91.00%", f"file       {place / FILE}"]
    written = json.loads((place / FILE).read_text())
    assert (written["grid"], written["seeds"], [cell["seed"] for cell in written["cells"]]) == ({}, [0, 2], [0, 2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep", "p.toml"], "nothing says what the runs differ in"),
        (["sweep", "p.toml", "--grid", "method.temperature=1..2"], "is a range, and a grid takes values"),
        (["sweep", "p.toml", "--seeds", "1,1"], "is not a list of different whole numbers"),
        (["sweep", "p.toml", "--seeds", "1", "--jobs", "0"], "--jobs"),
        (["sweep", "p.toml", "--grid", "method=kd,dkd", "--out", "teacher.toml"], "`teacher.toml` exists and is not a sweep"),
        (["sweep", "p.toml", "--grid", "optimizer.lr=1,2", "--slurm", "time=60", "--optimize", "top1", "--trials", "3"], "a search waits"),
        (["sweep", "p.toml", "--seeds", "1", "--slurm", "time=60", "--allow-code"], "does not work with `--allow-code`"),
        (["sweep", "p.toml", "--seeds", "1", "--slurm", "partitoin=gpu"], "did you mean `partition`"),
        (["train", "p.toml", "--seeds", "a"], "is not a list of different whole numbers"),
        (["train", "p.toml", "--seeds", "1,2", "--seed", "1"], "`--seed` cannot be given together with `--seeds`"),
        (["train", "p.toml", "--seeds", "1,2", "--fresh"], "`--fresh` cannot be given together with `--seeds`"),
        (["train", "p.toml", "--seeds", "1,2", "--from-previous"], "`--from-previous` cannot be given together with `--seeds`"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_trained(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(arguments) == 2
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


def test_an_array_of_jobs_is_submitted(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tools = folder / "tools"
    tools.mkdir()
    (tools / "sbatch").write_text(f'#!/bin/sh\ncp "$1" {tools}/job; echo Submitted batch job 41\n')
    (tools / "squeue").write_text("#!/bin/sh\necho PENDING\n")
    (tools / "srun").write_text("#!/bin/sh\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    arguments = ["sweep", "p.toml", "--grid", "method=kd,dkd", "--seeds", "0,1", "--jobs", "2", "--out", "s", "--slurm", "time=60"]
    assert run([*arguments, "--dry-run"]) == 0
    assert not Path("s").exists()
    capsys.readouterr()
    assert run(arguments) == 0
    assert capsys.readouterr().out.splitlines() == [
        "sweep      s: 4 runs",
        "job 41_0   kd, seed 0",
        "job 41_1   kd, seed 1",
        "job 41_2   dkd, seed 0",
        "job 41_3   dkd, seed 1",
        "cancel     scancel 41",
    ]
    assert {"#SBATCH --array=0-3%2", "#SBATCH --job-name=s", "#SBATCH --time=60"} <= set((tools / "job").read_text().splitlines())
    (tools / "job").unlink()
    assert run(arguments) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "submitted  nothing: every run is finished or on its way"
    assert not (tools / "job").exists()


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [PYTHON, "-m", "distillctl", "sweep", "p.toml", "--device", "cpu", "--out", "s", *arguments]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(process: subprocess.Popen[str], true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 240
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_a_sweep_that_was_killed_and_stopped_is_what_its_runs_are_alone(folder: Path) -> None:
    """Two methods and the control with two seeds, in real processes, one of which trains the teacher of all."""
    arguments = ("--grid", "method=kd,dkd", "--seeds", "0,1", "--control", "--jobs", "2")
    begun = lambda: len(list(Path("s").glob("*/run.json")))  # noqa: E731
    process = start(*arguments)
    until(process, lambda: begun() >= 1)
    process.kill()
    process.communicate()
    process = start(*arguments)
    until(process, lambda: begun() >= 3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 143, err
    process = start(*arguments)
    out, err = process.communicate(timeout=240)
    assert (process.returncode, err) == (0, "")
    assert [line.split()[:2] for line in out.splitlines()[-4:-1]] == [["kd", "2/2"], ["dkd", "2/2"], ["none", "2/2"]]
    assert len(list(Path("runs").glob("teacher-*"))) == 1
    registry = Registry.load()
    request = Request("p.toml", device="cpu")
    made = plan(request, settle(SweepTable(), grid=["method=kd,dkd"], seeds="0,1", control=True), registry, Path("s"))
    assert {Book(made).entry(cell)["state"] for cell in made.cells} == {"finished"}
    for cell in made.cells:
        with audience(quiet=True, talks=False) as nobody:
            alone = train(cell.request.load(registry), registry, nobody, out=Path("alone", cell.path.name), device="cpu").path
        assert (alone / "student.safetensors").read_bytes() == (cell.path / "student.safetensors").read_bytes(), cell.title
