"""`launch` as a user calls it. SLURM's commands are replaced by ones that note what they are given."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distillctl.cli import run

pytestmark = pytest.mark.posix

PROFILE = """
[dataset]
name = "digits"
[student]
name = "resnet8"
[train]
epochs = 5000
"""


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the scripts that `sbatch` was given; the current folder has a profile."""
    tools = tmp_path / "tools"
    tools.mkdir()
    count = f"n=$(ls {tools}/*.job 2>/dev/null | wc -l)"
    (tools / "sbatch").write_text(f'#!/bin/sh\n{count}; cp "$1" {tools}/$((n + 1)).job; echo Submitted batch job $((n + 1))\n')
    (tools / "srun").write_text("#!/bin/sh\n")
    for name in ("sbatch", "srun"):
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profile.toml").write_text(PROFILE)
    return tools


def names(scripts: Path) -> list[str]:
    return [
        line.partition("=")[2] for job in sorted(scripts.glob("*.job")) for line in job.read_text().splitlines() if "--job-name" in line
    ]


def test_a_job_is_submitted_and_said_how_to_follow_and_to_end(scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["launch", "profile.toml", "--slurm", "partition=gpu", "--slurm", "time=60", "--slurm", "gpus_per_node=1"]) == 0
    (name,) = names(scripts)
    logs = Path("runs/jobs").absolute()
    assert capsys.readouterr().out.splitlines() == [
        "job        1",
        f"run        runs/{name}",
        f"logs       {logs}/1_0_log.out",
        f"           {logs}/1_0_log.err",
        "cancel     scancel 1",
    ]
    assert name.startswith("profile-")
    assert not Path("runs", name).exists(), "the job makes it"


def test_every_seed_is_a_job(scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["launch", "profile.toml", "--seeds", "0,1,2", "--device", "cpu", "--slurm", "time=60"]) == 0
    assert len(set(names(scripts))) == 3
    out = capsys.readouterr().out
    assert [f"scancel {n}" in out for n in (1, 2, 3)] == [True] * 3
    assert "note" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "train.epoch=2"], "train.epoch"),
        (["--method", "kdd"], "kdd"),
        (["--slurm", "partitoin=gpu"], "did you mean `partition`"),
        (["--slurm", "nodes=2"], "a training runs on one node"),
        (["--nproc", "4", "--slurm", "gpus_per_node=2"], "needs 4 GPUs, and the job asks for 2"),
        (["--seeds", "1,1"], "is not a list of different whole numbers"),
        (["--seeds", "1,2", "--seed", "3"], "`--seed` cannot be given together with `--seeds`"),
        (["--seeds", "1,2", "--out", "a"], "`--out` cannot be given together with `--seeds`"),
        (["--out", "tools"], "not a run directory"),
        (["--logs", "a%j"], "has a `%` in its name"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_submitted(
    scripts: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(["launch", "profile.toml", "--slurm", "time=60", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert names(scripts) == []


def test_a_job_without_a_time_limit_is_refused(scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["launch", "profile.toml"]) == 2
    assert "no time limit" in capsys.readouterr().err
    assert names(scripts) == []


def test_a_finished_run_is_not_submitted(scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["launch", "profile.toml", "--slurm", "time=60", "--device", "cpu"]
    assert run(arguments) == 0
    (name,) = names(scripts)
    Path("runs", name).mkdir()
    Path("runs", name, "run.json").write_text(json.dumps({"state": "finished", "digest": "x"}))
    capsys.readouterr()
    assert run(arguments) == 0
    assert capsys.readouterr().out == f"this run is finished: runs/{name}\n"
    assert len(names(scripts)) == 1


def test_a_job_without_a_gpu_is_noted(scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, noted in (([], True), (["--device", "cpu"], False), (["--slurm", "gres=gpu:1"], False)):
        assert run(["launch", "profile.toml", "--slurm", "time=60", *more]) == 0
        assert ("the job asks for no GPU" in capsys.readouterr().out) is noted


def test_no_slurm_is_a_matter_of_the_machine(scripts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert run(["launch", "profile.toml", "--slurm", "time=60"]) == 3
    assert "`--local` runs the job on this machine" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_ends_the_waiting_and_not_the_job(scripts: Path) -> None:
    """On a terminal the signal reaches every process of the command's group."""
    command = [sys.executable, "-m", "distillctl", "launch", "profile.toml", "--device", "cpu", "--local", "--wait"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    job = int(process.stdout.readline().split()[1])
    try:
        deadline = time.monotonic() + 60
        while not (tasks := Path(f"/proc/{job}/task/{job}/children").read_text().split()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)  # would wait for the job if that kept the pipes
        assert process.returncode == 130
        assert f"job {job} goes on without this command; `kill {job}` ends it" in errors
        time.sleep(0.3)
        assert Path(f"/proc/{job}").exists()
        assert Path(f"/proc/{tasks[0]}").exists()
    finally:
        os.kill(job, signal.SIGTERM)
        while Path(f"/proc/{job}").exists():
            time.sleep(0.05)
