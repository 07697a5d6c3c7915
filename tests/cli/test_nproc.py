"""`train --nproc N` as it is typed."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load, load_teacher_profile
from distillctl.rundir.directory import place
from distillctl.rundir.lock import locked

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SHORT = (
    *("--set", "train.epochs=2", "--set", "dataset.limit=200", "--set", "teacher.allow_untrained=true"),
    *("--set", "teacher.overrides.train.epochs=1", "--set", "teacher.overrides.dataset.limit=200"),
)

PROFILE = """
[dataset]
name = "digits"
limit = 200
[student]
name = "resnet8"
[train]
epochs = 2
batch_size = 32
"""


def run(folder: Path, command: str, *more: str) -> subprocess.CompletedProcess[str]:
    _, *arguments = shlex.split(command)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [sys.executable, "-m", "distillctl", *arguments, *more],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_two_processes_train_teacher_and_student_and_speak_with_one_voice(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    done = run(tmp_path, "distillctl train profiles/quickstart.toml --nproc 2", *SHORT)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("epoch 2/2") == 1
    assert done.stdout.count("student    ") == 1
    found = {json.loads(path.read_text())["name"]: json.loads(path.read_text()) for path in tmp_path.glob("runs/*/run.json")}
    assert {name: info["processes"] for name, info in found.items()} == {"quickstart": 2, "digits_teacher": 2}
    refused = run(tmp_path, "distillctl train profiles/quickstart.toml --nproc 3", *SHORT, "--set", "train.batch_size=4")
    assert refused.returncode == 2
    assert refused.stderr.count("cannot be cut among 3 processes") == 1


def test_torchrun_on_two_nodes_trains_what_nproc_trains(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(PROFILE)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    command = ["-m", "distillctl", "train", "p.toml", "--out", "torchrun", "--device", "cpu"]
    nodes = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *meeting, "--node-rank", str(rank), *command],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    spoken = [node.communicate(timeout=180) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], spoken
    assert sorted(out.count("student    ") for out, _ in spoken) == [0, 1]
    assert run(tmp_path, "distillctl train p.toml --nproc 2 --out nproc --device cpu").returncode == 0
    assert (tmp_path / "torchrun/student.safetensors").read_bytes() == (tmp_path / "nproc/student.safetensors").read_bytes()
    info = json.loads((tmp_path / "torchrun/run.json").read_text())
    assert (info["processes"], info["state"]) == (2, "finished")


def test_two_processes_wait_for_a_teacher_that_others_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than the patience with which they wait for each other in training; then they train it themselves, for nobody did."""
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    monkeypatch.chdir(tmp_path)
    registry = Registry.load()
    profile = load("profiles/quickstart.toml", registry=registry, overrides=SHORT[1::2])
    trainer = load_teacher_profile(profile, registry)
    path, _ = place(trainer.name, trainer.digest)
    command = [sys.executable, "-m", "distillctl", "train", "profiles/quickstart.toml", "--nproc", "2", *SHORT]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "DISTILLCTL_PATIENCE": "5"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        with locked(path):
            said = []
            for line in process.stdout:
                said.append(line)
                if "waiting until the teacher is there" in line:
                    break
            else:
                pytest.fail("".join(said))
            time.sleep(8)
            assert process.poll() is None
        rest, _ = process.communicate(timeout=180)
    assert process.returncode == 0, rest
    assert "waiting" not in rest
    assert "teacher: trained in" in rest
    assert {json.loads(one.read_text())["processes"] for one in tmp_path.glob("runs/*/run.json")} == {2}
