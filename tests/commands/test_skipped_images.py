"""A run with broken files under `on_error = "skip"`: it ends, counts them, goes on without them, and is judged without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillctl.api.tracker import Tracker
from distillctl.cli import run
from distillctl.commands.dry_run import dry_run
from distillctl.commands.evaluate import evaluate_run
from distillctl.commands.train import train
from distillctl.errors import DataError
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.rundir.directory import RunDirectory
from distillctl.testing.trees import write_image, write_tree

PROFILE = """\
[dataset]
name = "imagefolder"
root = "pictures"
image_size = 16
on_error = "skip"
[student]
name = "resnet8"
[method]
name = "none"
[train]
epochs = 1
batch_size = 16
workers = 0
"""
BROKEN = ("train/cat/0003.jpg", "train/dog/0007.jpg", "val/cat/0001.jpg")  # of 60 files: 5 %


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILLCTL_CACHE", str(tmp_path / "cache"))
    Path("photos.toml").write_text(PROFILE)
    tree = write_tree(tmp_path / "pictures", {"train/cat": 20, "train/dog": 20, "val/cat": 10, "val/dog": 10})
    for name in BROKEN:
        (tree / name).write_bytes((tree / name).read_bytes()[:-40])
    return Registry.load()


class Notes(Tracker):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_run_ends_and_counts_what_it_left_out(registry: Registry) -> None:
    display = Notes()
    result = train(load("photos.toml", registry=registry), registry, display, device="cpu")
    assert result.summary["skipped"] == {"train": 2, "val": 1}
    info = RunDirectory.open(result.path).info()
    assert info["skipped"] == {"train": 2, "val": 1}
    assert info["data_listing"]["train"].startswith("38 images")
    assert "3 broken images left out (train 2, val 1): `pictures/train/cat/0003.jpg`" in info["data"]
    assert [note for note in display.notes if note.startswith("WARNING: 3 broken images left out")]
    assert evaluate_run(result.path, registry, split="val", device="cpu").figures["count"] == 19


def test_a_repaired_file_is_a_change_of_the_data(registry: Registry) -> None:
    profile = load("photos.toml", registry=registry)
    result = train(profile, registry, Tracker(), device="cpu")
    RunDirectory.open(result.path).update(state="running")
    write_image(Path("pictures") / BROKEN[0], seed=3)
    with pytest.raises(DataError, match="the data `train`: 38 images") as caught:
        train(profile, registry, Tracker(), device="cpu")
    assert len(caught.value.problems) == 1
    write_image(Path("pictures") / BROKEN[2], seed=3)
    with pytest.raises(DataError, match="the data `val`"):
        evaluate_run(result.path, registry, split="val", device="cpu")


def test_by_default_a_broken_file_stops(registry: Registry) -> None:
    with pytest.raises(DataError, match=r"3 of 60 images cannot be used \(train 2, val 1\)"):
        dry_run(load("photos.toml", registry=registry, overrides=['dataset.on_error="stop"']), registry, device="cpu")


def test_check_data_reports_what_would_be_left_out(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check-data", "photos.toml"]) == 1
    assert "broken: 3 images (cut off 3)" in capsys.readouterr().out
