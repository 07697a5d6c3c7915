"""`train --nproc N` as it is typed."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHORT = (
    *("--set", "train.epochs=2", "--set", "dataset.limit=200", "--set", "teacher.allow_untrained=true"),
    *("--set", "teacher.overrides.train.epochs=1", "--set", "teacher.overrides.dataset.limit=200"),
)


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
