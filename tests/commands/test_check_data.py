"""`check-data`: counts, sizes, copies across splits, and what is broken."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from distillctl.api.data import ArrayImages, Splits, View
from distillctl.cli import run
from distillctl.commands import check_data as module
from distillctl.commands.check_data import Range
from distillctl.testing.trees import write_tree

PROFILE = """\
[dataset]
name = "imagefolder"
root = "pictures"
[student]
name = "torchvision/resnet18"
[train]
epochs = 1
workers = 0
"""


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos.toml").write_text(PROFILE)
    return write_tree(tmp_path / "pictures", {"train/cat": 3, "train/dog": 2, "val/cat": 1, "val/dog": 1})


def report(capsys, *arguments):
    code = run(["check-data", "photos.toml", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


def test_whole_data(tree, capsys):
    code, found = report(capsys)
    assert code == 0
    sizes = {side: {"min": n, "median": n, "max": n} for side, n in (("width", 24), ("height", 20))}
    assert found["splits"] == {
        name: {"images": count, "classes": classes, **sizes}
        for name, count, classes in (("train", 5, {"cat": 3, "dog": 2}), ("val", 2, {"cat": 1, "dog": 1}))
    }
    assert (found["broken"], found["duplicates"], found["remarks"]) == ([], [], [])
    assert run(["check-data", "photos.toml"]) == 0
    out = capsys.readouterr().out
    assert "ok: 7 images, none broken" in out
    assert [line.split() for line in out.splitlines() if line.startswith("  cat")] == [["cat", "3", "1"]]


def test_broken_files_are_named_by_split_and_kind(tree, capsys):
    for number in range(4):
        (tree / "train" / "cat" / f"x{number}.jpg").write_bytes(b"<html>")
    (tree / "val" / "dog" / "y.jpg").write_bytes(b"")
    code, found = report(capsys)
    assert code == 1
    assert [(one["split"], one["kind"]) for one in found["broken"]] == [("train", "not an image")] * 4 + [("val", "empty")]
    assert found["splits"]["train"]["classes"]["cat"] == 7
    assert run(["check-data", "photos.toml", "--show", "2"]) == 1
    out = capsys.readouterr().out
    assert "broken: 5 images (not an image 4, empty 1)" in out
    assert out.count("train, not an image: `") == 2
    assert "and 3 more" in out
    assert "ok:" not in out


def test_copies_across_splits_and_classes(tree, capsys):
    shutil.copy(tree / "train" / "cat" / "0000.jpg", tree / "val" / "cat" / "other-name.jpg")
    shutil.copy(tree / "train" / "dog" / "0001.jpg", tree / "train" / "dog" / "again.jpg")
    shutil.copy(tree / "train" / "cat" / "0002.jpg", tree / "train" / "dog" / "wrong.jpg")
    code, found = report(capsys)
    assert code == 0
    assert (len(found["duplicates"]), found["across"], found["contradicting"]) == (3, 1, 1)
    assert [place["split"] for place in found["duplicates"][0]] == ["train", "val"]
    run(["check-data", "photos.toml"])
    out = capsys.readouterr().out
    assert "WARNING: 1 picture in train and in val, too, such as `pictures/train/cat/0000.jpg`, `pictures/val/cat/other-name.jpg`" in out
    assert "note: 2 images of train are copies of another one there" in out
    assert "`pictures/train/cat/0002.jpg` as `cat`, `pictures/train/dog/wrong.jpg` as `dog`" in out


def test_sizes_and_remarks(tree, capsys):
    from PIL import Image

    for n, size in enumerate([(100, 10), (30, 90)]):
        Image.new("RGB", size, (n, 0, 0)).save(tree / "train" / "cat" / f"{n}.png")
    _, found = report(capsys)
    assert found["splits"]["train"]["width"] == {"min": 24, "median": 24, "max": 100}
    assert found["splits"]["train"]["height"] == {"min": 10, "median": 20, "max": 90}
    assert len(found["remarks"]) == 1
    assert found["remarks"][0].startswith("2 images have the same colour everywhere: `pictures/train/cat/0.png`")


def test_the_limit_of_a_profile_counts(tree, capsys):
    _, found = report(capsys, "--set", "dataset.limit=2")
    assert found["splits"]["train"]["images"] == 2


def test_images_in_memory_are_counted_and_compared(monkeypatch):
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (6, 9, 8, 3), dtype=np.uint8))
    pixels[5] = pixels[1]
    parts = [ArrayImages(pixels[:4], torch.tensor([0, 1, 1, 0])), None, ArrayImages(pixels[4:], torch.tensor([0, 0]))]
    splits = Splits(*parts, classes=("a", "b"), mean=(0.5,) * 3, std=(0.5,) * 3, view=View(size=8), remarks=("2 boxes are empty",))
    monkeypatch.setattr(module, "build_splits", lambda _profile, skips: None if skips else splits)

    class Profile:
        class train:
            workers = 0

    found = module.check_data(Profile)
    assert {name: dict(facts.classes) for name, facts in found.splits.items()} == {"train": {"a": 2, "b": 2}, "test": {"a": 2, "b": 0}}
    assert (found.splits["train"].width, found.splits["train"].height) == (Range(8, 8, 8), Range(9, 9, 9))
    assert [[(p.image, p.label) for p in group] for group in found.across] == [[("train[1]", "b"), ("test[1]", "a")]]
    assert found.remarks == ["2 boxes are empty"]


def test_what_is_wrong_with_the_profile_is_told_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos.toml").write_text(PROFILE)
    assert run(["check-data", "photos.toml"]) == 2
    assert "there is no folder `pictures`" in capsys.readouterr().err
