"""Under `on_error = "skip"` the same broken files are left out in every command, and files are decoded once."""

from __future__ import annotations

import os

import pytest
import torch

from distillctl.api.data import ArrayImages, FileImages, Splits, View
from distillctl.data import skipping
from distillctl.data.skipping import without_broken
from distillctl.errors import DataError
from distillctl.testing.trees import write_image


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLCTL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def examined(monkeypatch):
    """How often files were decoded."""
    calls, examine = [], skipping.examine
    monkeypatch.setattr(skipping, "examine", lambda *arguments: calls.append(1) or examine(*arguments))
    return calls


def broken(path):
    path.write_bytes(b"<html>")
    return path


def splits(train, labels, val=None):
    parts = [
        FileImages(train, torch.tensor(labels)),
        None if val is None else FileImages(val, torch.zeros(len(val), dtype=torch.int64)),
        None,
    ]
    return Splits(*parts, classes=("a", "b"), mean=(0.5,) * 3, std=(0.5,) * 3, view=View(size=12), description="pictures")


@pytest.fixture
def files(tmp_path):
    return [write_image(tmp_path / f"{n}.png", seed=n) for n in range(6)]


def test_broken_files_are_left_out_with_their_labels_and_counted(tmp_path, files):
    bad = [broken(tmp_path / f"bad-{n}.jpg") for n in range(3)]
    whole = without_broken(splits([files[0], bad[0], *files[1:4], bad[1]], [0, 1, 1, 0, 1, 0], [bad[2], *files[4:]]), 0)
    assert whole.train.paths == files[:4]
    assert whole.train.labels.tolist() == [0, 1, 0, 1]
    assert whole.val.paths == files[4:]
    assert whole.skipped == {"train": (bad[0], bad[1]), "val": (bad[2],)}
    assert whole.description == f"pictures; 3 broken images left out (train 2, val 1): `{bad[0]}`, `{bad[1]}`, `{bad[2]}`"


def test_whole_files_change_nothing(files):
    whole = splits(files, [0, 1] * 3)
    assert without_broken(whole, 0) is whole


def test_files_are_decoded_once_until_one_changes(tmp_path, files, examined, cache):
    bad = broken(tmp_path / "bad.jpg")
    data = splits([*files, bad], [0, 1] * 3 + [0])
    first = without_broken(data, 0)
    again = without_broken(data, 0)
    assert (len(examined), again.skipped, again.train.paths) == (1, first.skipped, files)
    state = bad.stat()
    write_image(bad, seed=9)
    os.utime(bad, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert without_broken(data, 0).train.paths == [*files, bad]
    assert len(examined) == 2
    for file in cache.iterdir():
        file.write_text('{"train": [[99, "empty", ""]]}')
    assert without_broken(data, 0).skipped == {}
    assert len(examined) == 3


def test_what_the_system_refuses_is_not_remembered(tmp_path, files, examined):
    """Rights come back without a change of size or time."""
    data = splits([*files, tmp_path / "gone.jpg"], [0, 1] * 3 + [0])
    assert [len(without_broken(data, 0).train) for _ in range(2)] == [6, 6]
    assert len(examined) == 2


def test_without_a_cache_the_same_files_are_left_out(tmp_path, files, monkeypatch):
    monkeypatch.setattr(skipping, "cache_folder", lambda: None)
    data = splits([broken(tmp_path / "bad.jpg"), *files], [0] + [0, 1] * 3)
    assert without_broken(data, 0).train.paths == without_broken(data, 0).train.paths == files


def test_a_class_or_a_split_without_an_image_is_told(tmp_path, files):
    bad = broken(tmp_path / "bad.jpg")
    with pytest.raises(
        DataError, match=r"nothing is left to train on for 1 class: all images of `b` are broken: `.*bad\.jpg` cannot be decoded"
    ):
        without_broken(splits([*files, bad], [0] * 6 + [1]), 0)
    with pytest.raises(DataError, match=r"none of the 1 image of val can be used: `.*bad\.jpg`"):
        without_broken(splits(files, [0, 1] * 3, [bad]), 0)


def test_images_in_memory_are_left_alone():
    pixels = ArrayImages(torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.tensor([0, 1]))
    whole = Splits(pixels, None, None, ("a", "b"), (0.5,) * 3, (0.5,) * 3, View(size=4))
    assert without_broken(whole, 0) is whole
