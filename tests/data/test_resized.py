"""Images kept resized: the same bits as without a cache, checked on opening, whole or not there."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import pickle
import signal
import time

import pytest
import torch
from PIL import Image

from distillctl.api.data import FileImages, Splits, View
from distillctl.api.options import check_image_sizes
from distillctl.data import eval_loader, resized, train_loader
from distillctl.data import workers as data_workers
from distillctl.data.resized import OnDisk, stored
from distillctl.errors import DataError, MachineError, ProfileError
from distillctl.testing.trees import write_image

CPU = torch.device("cpu")
AUGMENTS = ("none", "resize_crop", "crop_flip", "autoaugment", "randaugment")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLCTL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "resized"


@pytest.fixture
def files(tmp_path):
    paths = [write_image(tmp_path / f"{n}.jpg", seed=n) for n in range(7)]
    Image.open(paths[0]).resize((13, 40)).save(paths[0])  # another shape
    return FileImages(paths, torch.tensor([0, 1, 0, 1, 0, 1, 0]))


@pytest.fixture
def made(monkeypatch):
    """How often files were decoded for a cache."""
    calls, make = [], resized._resized
    monkeypatch.setattr(resized, "_resized", lambda *arguments: calls.append(1) or make(*arguments))
    return calls


def splits(files, augment="crop_flip", **view):
    view = {"size": 12, "resize": 0 if augment == "none" else 15, "eval_resize": 14} | view
    return Splits(files, files, None, ("a", "b"), (0.5,) * 3, (0.2,) * 3, View(augment=augment, **view))


def seen(data, workers=0, tta=""):
    """Two epochs of training, and an evaluation."""
    train = train_loader(data, batch_size=3, seed=5, device=CPU, workers=workers)
    held = eval_loader(data, data.val, batch_size=4, device=CPU, workers=workers, tta=tta)
    try:
        return [batch.images for epoch in range(2) for batch in train.epoch(epoch)] + [batch.images for batch in held]
    finally:
        train.close()
        held.close()


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_views_have_the_same_bits(files, augment, cache, made):
    plain, kept = (seen(splits(files, augment, cache=one)) for one in ("none", cache))
    assert len(plain) == len(kept) == 6
    assert all(torch.equal(a, b) for a, b in zip(plain, kept, strict=True))
    assert len(made) == (1 if augment == "none" else 2), "training and evaluation resize to another length"


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_workers_see_the_same_bits_and_files_are_read_once(files, cache, made):
    data = splits(files, cache=cache)
    plain = seen(splits(files))
    for workers in (1, 0):
        assert all(torch.equal(a, b) for a, b in zip(plain, seen(data, workers=workers), strict=True))
    assert len(made) == 2


def test_no_file_is_decoded_when_all_are_kept(files, monkeypatch):
    from distillctl.data import stream

    data = splits(files, cache="disk")
    plain = seen(data)
    monkeypatch.setattr(stream, "read_image", None)
    monkeypatch.setattr(resized, "read_image", None)
    assert all(torch.equal(a, b) for a, b in zip(plain, seen(data), strict=True))


def test_crops_come_from_the_files(files, made):
    data = splits(files, "none", cache="ram")
    for tta, views in (("five_crop", 5), ("ten_crop", 10)):
        held = eval_loader(data, data.val, batch_size=4, device=CPU, workers=0, tta=tta, tta_resize=20)
        assert next(iter(held)).images.shape == (4, views, 3, 12, 12)
    assert not made


def test_memory_is_given_back_with_the_images(tmp_path):
    gc.collect()
    before = len(resized._IN_MEMORY)
    images = FileImages([write_image(tmp_path / "a.png")], torch.tensor([0]))
    view = View(size=12, cache="ram")
    assert stored(images, view, 14, 0) is stored(images, view, 14, 0)
    assert len(resized._IN_MEMORY) == before + 1
    del images
    gc.collect()
    assert len(resized._IN_MEMORY) == before


def test_a_file_that_changes_is_another_cache(files, folder, made):
    view = View(size=12, cache="disk")
    first = stored(files, view, 14, 0)[3].clone()
    state = files.paths[3].stat()
    write_image(files.paths[3], seed=99)
    os.utime(files.paths[3], ns=(1, state.st_mtime_ns + 1))
    assert not torch.equal(stored(files, view, 14, 0)[3], first)
    stored(files, View(size=12, cache="disk", background=[0, 0, 0]), 14, 0)
    stored(files, view, 13, 0)
    assert len(made) == len([*folder.iterdir()]) == 4


def damaged_index(data):
    """Height and width of the first of seven images are exchanged, so that their sum stays."""
    index = len(data) - resized._TRAILER.size - 16 * 7
    return data[:index] + data[index + 8 : index + 16] + data[index : index + 8] + data[index + 16 :]


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-1], lambda d: d[:50], lambda d: b"", lambda d: d[100:], lambda d: d[:100] + d, damaged_index], ids=range(6)
)
def test_a_damaged_file_is_made_again(files, folder, made, damage):
    view = View(size=12, cache="disk")
    whole = [stored(files, view, 14, 0)[i].clone() for i in range(7)]
    (path,) = folder.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    again = stored(files, view, 14, 0)
    assert all(torch.equal(again[i], image) for i, image in enumerate(whole))
    assert len(made) == 2


def test_a_process_that_is_killed_leaves_no_cache(files, folder):
    """It is killed while it writes; the next one starts anew, and the rest is removed after a day."""
    view = View(size=12, cache="disk")

    def slow():
        read = resized.read_image
        resized.read_image = lambda *a, **k: time.sleep(0.05) or read(*a, **k)
        stored(files, view, 14, 0)

    data_workers._CHUNK, before = 1, data_workers._CHUNK
    try:
        process = multiprocessing.get_context("fork").Process(target=slow)
        process.start()
        while not (folder.is_dir() and any(folder.iterdir())):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    finally:
        data_workers._CHUNK = before
    (left,) = folder.iterdir()
    assert left.name.endswith(".tmp")
    os.utime(left, (1, 1))
    assert len(stored(files, view, 14, 0)) == 7
    assert [path.suffix for path in folder.iterdir()] == [".images"]


def test_another_process_maps_the_file_itself(files):
    store = stored(files, View(size=12, cache="disk"), 14, 0)
    sent = pickle.dumps(store)
    assert len(sent) < 500
    copy = pickle.loads(sent)
    assert isinstance(copy, OnDisk)
    assert torch.equal(copy[5], store[5])


def test_nothing_is_written_into_the_file(files, folder):
    view = View(size=12, cache="disk")
    stored(files, view, 14, 0)[0].zero_()
    assert stored(files, view, 14, 0)[0].any()


def test_a_broken_file_is_named_and_nothing_is_kept(files, folder):
    files.paths[2].write_bytes(files.paths[2].read_bytes()[:300])
    with pytest.raises(DataError, match=r"the image `.*2\.jpg` cannot be decoded"):
        stored(files, View(size=12, cache="disk"), 14, 0)
    assert [*folder.iterdir()] == []


def test_a_folder_that_cannot_be_written_is_told(files, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(resized, "_write", full)
    with pytest.raises(MachineError, match="cannot be written: No space left on device"):
        stored(files, View(size=12, cache="disk"), 14, 0)
    monkeypatch.setattr(resized, "cache_folder", lambda: None)
    with pytest.raises(MachineError, match="no folder for"):
        stored(files, View(size=12, cache="disk"), 14, 0)


@pytest.mark.parametrize("augment", ["random_resized_crop", "trivialaugment", "augmix"])
def test_crops_of_full_images_are_refused(files, augment):
    with pytest.raises(ProfileError, match="from images of full size"):
        train_loader(splits(files, augment, resize=0, cache="ram"), batch_size=3, seed=5, device=CPU, workers=0)
    with pytest.raises(ValueError, match="from images of full size"):
        check_image_sizes(12, augment, 0, 0, "ram")
    for other in AUGMENTS:
        check_image_sizes(12, other, 0, 0, "disk")


BOXES = torch.tensor([[2, 5, 11, 30], [3, 1, 900, 20], [-4, 2, 18, 17], [0, 0, 18, 20], [5, 6, 15, 16], [1, 2, 19, 9], [2, 2, 8, 21]])


@pytest.mark.parametrize("cache", ["none", "ram", "disk"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.slow
def test_boxes_are_cut_out_before_anything_else(files, tmp_path, cache, workers):
    """As if files had been cut before, in training and in evaluation; what lies beyond the picture is not there."""
    boxed = FileImages(files.paths, files.labels, boxes=BOXES)
    cut = []
    for path, (left, top, right, bottom) in zip(files.paths, BOXES.tolist(), strict=True):
        image = Image.open(path)
        cut.append(tmp_path / f"cut{path.stem}.png")
        image.crop((max(0, left), max(0, top), min(right, image.width), min(bottom, image.height))).save(cut[-1])
    whole = seen(splits(files, cache=cache), workers)
    found = seen(splits(boxed, cache=cache), workers)
    expected = seen(splits(FileImages(cut, files.labels)))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(found, whole, strict=True))


def test_boxes_go_with_their_images_and_must_fit(files):
    boxed = FileImages(files.paths, files.labels, boxes=BOXES)
    assert torch.equal(boxed.subset(torch.tensor([4, 0])).boxes, BOXES[[4, 0]])
    assert files.subset(torch.tensor([4, 0])).boxes is None
    for wrong in (BOXES[:3], BOXES.float(), BOXES[:, :2]):
        with pytest.raises(DataError, match=r"boxes must be int64 of shape \(7, 4\)"):
            FileImages(files.paths, files.labels, boxes=wrong)
    outside = BOXES.clone()
    outside[3] = torch.tensor([50, 0, 60, 10])
    with pytest.raises(DataError, match=r"nothing of the image `.*3\.jpg`, \d+×\d+ pixels, lies in its box \(50, 0, 60, 10\)"):
        seen(splits(FileImages(files.paths, files.labels, boxes=outside)))
