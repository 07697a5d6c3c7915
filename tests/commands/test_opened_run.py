"""A run opened to look into it: its student after a kept epoch, its images as evaluations see them, and where its teacher's run is."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distillctl import OpenedRun, open_run
from distillctl.commands.evaluate import evaluate_run
from distillctl.commands.from_python import train
from distillctl.errors import DataError
from distillctl.plugin.registry import Registry
from distillctl.rundir.directory import RunDirectory

CLASSES, COUNTS = 5, {"train": 20, "val": 10, "test": 15}
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


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher's run that its student's profile named, and the student's."""
    path = tmp_path_factory.mktemp("opened")
    draw = np.random.default_rng(0)
    arrays: dict[str, Any] = {"classes": np.array(list("abcde"))}
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = draw.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % CLASSES
    np.savez(path / "images.npz", **arrays)
    (path / "teacher.toml").write_text(PROFILE)
    taught = PROFILE.replace("[method]", '[teacher]\nprofile = "teacher.toml"\nallow_untrained = true\n[method]')
    (path / "student.toml").write_text(taught.replace('"none"', '"kd"'))
    with contextlib.chdir(path):
        train("student.toml", device="cpu", out="runs/student")
    return path


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(trained, tmp_path / "moved")
    with contextlib.chdir(tmp_path / "moved"):
        yield tmp_path / "moved"


@pytest.fixture
def opened(folder: Path) -> OpenedRun:
    return open_run("runs/student", device="cpu")


def test_epochs_that_were_kept(opened: OpenedRun) -> None:
    assert opened.kept == (2, 4)
    assert {epoch: line["lr"] for epoch, line in opened.records.items()} == pytest.approx({1: 0.1, 2: 0.1, 3: 0.01, 4: 0.01})


def test_the_student_is_that_of_the_epoch(opened: OpenedRun) -> None:
    for epoch in opened.kept:
        saved = torch.load(opened.path / "checkpoints" / f"epoch-{epoch:04d}.pt", weights_only=True)["student"]
        with opened.student(epoch) as model:
            assert not model.training
            state = model.state_dict()
        assert all(torch.equal(state[name], value) for name, value in saved.items())
    with pytest.raises(DataError, match="kept no checkpoint of epoch 3"), opened.student(3):
        pass


def test_a_damaged_checkpoint_is_refused(opened: OpenedRun) -> None:
    with (opened.path / "checkpoints" / "epoch-0002.pt").open("ab") as file:
        file.write(b"more")
    with pytest.raises(DataError, match="is not the file that this run wrote"), opened.student(2):
        pass


def test_training_images_are_seen_without_augmentation(opened: OpenedRun) -> None:
    wanted = [17, 3, 11]
    (batch,) = opened.batches("train", wanted)
    with np.load("images.npz") as file:
        pixels, labels = file["train_images"][wanted], file["train_labels"][wanted]
    shown = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (opened.task.data.mean, opened.task.data.std))
    torch.testing.assert_close(batch.images, (shown / 255 - mean) / std)
    assert batch.labels.tolist() == labels.tolist()
    assert batch.index.tolist() == wanted
    assert torch.equal(opened.pictures("train", wanted), shown)


def test_batches_have_the_size_that_is_asked_for(opened: OpenedRun) -> None:
    batches = list(opened.batches("test", size=4))
    assert [len(batch.labels) for batch in batches] == [4, 4, 4, 3]
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(15))


def test_an_image_that_is_not_there(opened: OpenedRun) -> None:
    with pytest.raises(DataError, match="there is no image 20 in the train split"):
        next(opened.batches("train", [3, 20]))


def test_other_images_are_noticed(opened: OpenedRun, folder: Path) -> None:
    opened.check_images("train")
    with np.load("images.npz") as file:
        arrays = dict(file)
    arrays["train_images"][0] += 1
    np.savez("images.npz", **arrays)
    again = open_run("runs/student", device="cpu")
    assert again.listing("train") != opened.listing("train")
    assert again.listing("test") == opened.listing("test")
    with pytest.raises(DataError, match="the data `train`"):
        again.check_images("train")


def test_the_teachers_run_is_noted_and_found(opened: OpenedRun, trained: Path, folder: Path) -> None:
    """Of a student that has labels, too: `eval --against-teacher` needs it."""
    (teacher,) = (path for path in (folder / "runs").iterdir() if path.name.startswith("teacher"))
    noted = json.loads((opened.path / "run.json").read_text())["teacher_run"]
    assert noted == str(trained / "runs" / teacher.name)
    assert opened.teacher == Path(noted)
    run = RunDirectory.open(opened.path)
    run.update(teacher_run=str(folder / "gone" / teacher.name))  # all runs were moved together
    assert open_run("runs/student", device="cpu").teacher == Path("runs") / teacher.name
    assert evaluate_run(opened.path, Registry.load(), device="cpu", against_teacher=True).figures["teacher_agreement"] >= 0
    assert open_run(teacher, device="cpu").teacher is None
    shutil.rmtree(teacher)
    assert open_run("runs/student", device="cpu").teacher is None


def test_runs_of_older_versions_did_not_note_their_teacher(opened: OpenedRun, folder: Path) -> None:
    path, run = opened.path / "run.json", RunDirectory.open(opened.path)
    info = run.info()
    del info["teacher_run"], info["checksum"]
    path.write_text(json.dumps(info))
    report = evaluate_run(opened.path, Registry.load(), device="cpu", against_teacher=True)
    assert report.figures["teacher_agreement"] >= 0
    next(path for path in (folder / "runs").iterdir() if path.name.startswith("teacher")).rename("elsewhere")
    with pytest.raises(DataError, match="the run of its teacher is not beside it"):
        evaluate_run(opened.path, Registry.load(), device="cpu", against_teacher=True)
