"""A student's run and its teacher's, both with checkpoints of two epochs, on made-up images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distillctl import OpenedRun, open_run, train

CLASSES, COUNTS = 5, {"train": 30, "val": 10, "test": 40}
PROFILE = """
seed = 3
[dataset]
name = "npz"
root = "images.npz"
[student]
name = "resnet8"
[method]
name = "none"
[optimizer]
name = "sgd"
lr = 0.1
[schedule]
name = "step"
milestones = [0.5]
[train]
epochs = 4
batch_size = 10
keep_every = 2
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, profiles, and `runs/student` beside the run of its teacher."""
    path = tmp_path_factory.mktemp("traced")
    draw = np.random.default_rng(0)
    arrays: dict[str, Any] = {"classes": np.array(["ant", "bee", "cat", "dog", "emu"])}
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = draw.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % CLASSES
    np.savez(path / "images.npz", **arrays)
    (path / "teacher.toml").write_text(PROFILE.replace("resnet8", "resnet14"))
    taught = PROFILE.replace("[method]", '[teacher]\nprofile = "teacher.toml"\nallow_untrained = true\n[method]')
    (path / "student.toml").write_text(taught.replace('"none"', '"kd"'))
    with contextlib.chdir(path):
        train("student.toml", device="cpu", out="runs/student")
    return path


@pytest.fixture
def inside(folder: Path, tmp_path: Path) -> Iterator[Path]:
    """The folder as current directory; what is written goes to the path."""
    with contextlib.chdir(folder):
        yield tmp_path


@pytest.fixture
def student(inside: Path) -> OpenedRun:
    """The student's run."""
    return open_run("runs/student", device="cpu")


@pytest.fixture
def teacher(student: OpenedRun) -> OpenedRun:
    """Its teacher's."""
    assert student.teacher is not None
    return open_run(student.teacher, device="cpu")
