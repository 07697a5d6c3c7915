"""All image files are looked at before anything is trained; only those that look odd are decoded."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from distillctl.api.data import ArrayImages, FileImages, Splits, View
from distillctl.data import inspection
from distillctl.data.inspection import inspect
from distillctl.errors import DataError
from distillctl.testing.datasets import write_image

PICTURE = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
SAVED = {
    "jpg": {},
    "png": {},
    "gif": {},
    "webp": {},
    "bmp": {},
    "ppm": {},
    "tif": {},
    "lzw.tif": {"compression": "tiff_lzw"},
    "tiled.tif": {"compression": "tiff_adobe_deflate", "tile": (16, 16)},
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLCTL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def images(paths):
    return FileImages(paths, torch.zeros(len(paths), dtype=torch.int64))


def splits(train=(), val=(), test=(), **view):
    parts = [images(list(part)) if part else None for part in (train, val, test)]
    return Splits(*parts, classes=("a",), mean=(0.5,) * 3, std=(0.5,) * 3, view=View(size=12, **view))


def saved(tmp_path, name):
    path = tmp_path / f"whole.{name}"
    Image.fromarray(PICTURE).save(path, **SAVED[name])
    return path


@pytest.fixture
def decoded(monkeypatch):
    """Files whose pixels were read."""
    seen, load = [], ImageFile.ImageFile.load

    def noted(self):
        if not seen or seen[-1] != self.filename:
            seen.append(self.filename)
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", noted)
    return seen


@pytest.mark.parametrize("name", SAVED)
def test_a_whole_file_is_not_decoded(tmp_path, name, decoded):
    inspect(splits(train=[saved(tmp_path, name)]))
    assert not decoded


@pytest.mark.parametrize("name", SAVED)
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_file_that_is_cut_short_is_found_in_every_split(tmp_path, name, split):
    data = saved(tmp_path, name).read_bytes()
    whole = [write_image(tmp_path / f"{i}.png", seed=i) for i in range(5)]
    for share in (0.5, 0.99):
        cut = tmp_path / f"cut-{share}.{name}"
        cut.write_bytes(data[: int(share * len(data))])
        parts = {"train": whole, split: [*whole, cut]}
        with pytest.raises(DataError, match="cannot be used") as error:
            inspect(splits(**parts))
        count = 6 if split == "train" else 11
        assert f"1 of {count} images cannot be used ({split} 1): `{cut}` cannot be decoded: " in str(error.value)


@pytest.mark.parametrize("name", ["jpg", "png", "gif", "webp", "tiled.tif"])
def test_a_file_that_was_allocated_and_not_filled_is_found(tmp_path, name):
    """As a download that broke off leaves it: its size is right, its end is zeros."""
    data = saved(tmp_path, name).read_bytes()
    (tmp_path / f"a.{name}").write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    with pytest.raises(DataError, match="cannot be decoded"):
        inspect(splits(train=[tmp_path / f"a.{name}"]))


def test_zeros_behind_the_end_are_padding(tmp_path):
    path = saved(tmp_path, "jpg")
    path.write_bytes(path.read_bytes() + bytes(5000))
    inspect(splits(train=[path]))


@pytest.mark.parametrize("name", ["jpg", "png", "gif"])
def test_something_behind_the_picture_makes_it_no_broken_file(tmp_path, name, decoded):
    """Phones put films and notes there; such a file is decoded to be sure."""
    path = saved(tmp_path, name)
    path.write_bytes(path.read_bytes() + b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 4)
    inspect(splits(train=[path]))
    assert decoded == [str(path)] or decoded == [path]


def test_at_most_three_are_named_with_the_number_of_all(tmp_path):
    broken = []
    for number, content in enumerate([b"", b"<html>not found", b"%!PS-Adobe", b"\xff\xd8\xff", b"GIF89a"]):
        broken.append(tmp_path / f"broken-{number}.jpg")
        broken[-1].write_bytes(content)
    whole = write_image(tmp_path / "a.png")
    with pytest.raises(DataError) as error:
        inspect(splits(train=[whole, broken[0]], val=broken[1:3], test=[*broken[3:], tmp_path / "gone.jpg"]))
    text = error.value.problems[0].message
    assert text.startswith(f"6 of 7 images cannot be used (train 1, val 2, test 3): `{broken[0]}` cannot be decoded: it is not an image")
    assert text.count("broken-") == 3
    assert text.endswith("; and 3 more")
    assert "nothing has been trained yet" in error.value.problems[0].hint


def test_a_missing_and_a_large_file_are_told_as_what_they_are(tmp_path):
    with pytest.raises(DataError, match=r"1 of 1 images cannot be used \(test 1\): `.*gone\.jpg` is missing"):
        inspect(splits(test=[tmp_path / "gone.jpg"]))
    with pytest.raises(DataError, match=r"50×40 pixels, more than the 0\.001 megapixels") as error:
        inspect(splits(test=[saved(tmp_path, "png")], max_megapixels=0.001))
    assert "dataset.max_megapixels=1" in error.value.problems[0].hint


def test_what_was_found_is_remembered_until_a_file_changes(tmp_path, monkeypatch, cache):
    paths = [write_image(tmp_path / f"{i}.png", seed=i) for i in range(4)]
    looked = []
    look = inspection._look
    monkeypatch.setattr(inspection, "_look", lambda path, view: looked.append(path) or look(path, view))
    first = inspect(splits(train=paths[:3], test=paths[3:]))
    assert sorted(looked) == paths
    assert len([*(cache / "inspected").iterdir()]) == 1
    looked.clear()
    assert inspect(splits(train=paths[:3], test=paths[3:])) == first
    assert not looked
    os.utime(paths[1], ns=(1, time.time_ns()))
    inspect(splits(train=paths[:3], test=paths[3:]))
    assert len(looked) == 4
    looked.clear()
    paths[3].write_bytes(paths[3].read_bytes()[:100])
    for _ in range(2):  # what is wrong is not remembered
        with pytest.raises(DataError):
            inspect(splits(train=paths[:3], test=paths[3:]))
    assert len(looked) == 8
    with pytest.raises(DataError):  # nor is it forgotten that less is allowed now
        inspect(splits(train=paths[:3], max_megapixels=1e-6))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"notes": 5}', b"\xff"])
def test_a_damaged_memory_is_none(tmp_path, cache, content):
    paths = [write_image(tmp_path / "a.png")]
    first = inspect(splits(train=paths))
    (file,) = (cache / "inspected").iterdir()
    file.write_bytes(content)
    assert inspect(splits(train=paths)) == first


def test_without_a_cache_that_can_be_written_it_works_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DISTILLCTL_CACHE", str(tmp_path / "file"))
    assert inspect(splits(train=[write_image(tmp_path / "a.png")])).notes == ()


def test_images_in_memory_need_no_look(cache):
    pixels = ArrayImages(torch.zeros(2, 4, 4, 1, dtype=torch.uint8), torch.tensor([0, 0]))
    assert inspect(Splits(pixels, None, pixels, ("a",), (0.5,), (0.5,), View(4))).notes == ()
    assert not cache.exists()


def test_many_files_take_little_time(tmp_path):
    """Four times what it takes on two cores would still be below a minute for 100,000."""
    data = saved(tmp_path, "jpg").read_bytes()
    paths = [tmp_path / f"{i}.jpg" for i in range(2000)]
    for path in paths:
        path.write_bytes(data)
    started = time.perf_counter()
    inspect(splits(train=paths))
    assert time.perf_counter() - started < 4
