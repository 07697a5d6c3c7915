"""Images within a larger file are what files of their own are, for loaders, inspection, splits and the comparing of a continued run."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from distillctl.api.data import FileImages, Splits, StoredImage, StoredImages, View
from distillctl.commands.resume_check import file_facts, listing
from distillctl.data import eval_loader, train_loader
from distillctl.data.decode import open_image, read_image
from distillctl.data.examine import examine
from distillctl.data.inspection import file_states, inspect
from distillctl.data.splits import limit_training, shared_images
from distillctl.errors import DataError
from distillctl.testing.trees import write_image

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Blob:
    """One file after the other in a larger one."""

    file: Path
    bounds: tuple[int, ...]

    @property
    def name(self) -> str:
        return str(self.file)

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.file,)

    def read(self, row: int) -> bytes:
        with self.file.open("rb") as file:
            file.seek(self.bounds[row])
            return file.read(self.bounds[row + 1] - self.bounds[row])


def blob_of(paths, place):
    contents = [path.read_bytes() for path in paths]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"".join(contents))
    return Blob(place, tuple(sum(map(len, contents[:i])) for i in range(len(contents) + 1)))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLCTL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pair(tmp_path):
    """The same eight images as files and in one file, there in the opposite order."""
    paths = [write_image(tmp_path / "files" / f"{i}.{'png' if i % 2 else 'jpg'}", seed=i) for i in range(8)]
    labels = torch.tensor([i % 2 for i in range(8)])
    store = blob_of(paths[::-1], tmp_path / "all" / "images.blob")
    return FileImages(paths, labels), StoredImages(store, torch.arange(7, -1, -1), labels)


def splits_of(images):
    train, val = images.subset(torch.arange(6)), images.subset(torch.tensor([7, 6]))
    view = View(size=12, augment="crop_flip", resize=16)
    return Splits(train, val, None, ("a", "b"), (0.5,) * 3, (0.2,) * 3, view, "6 and 2")


def batches(images, workers):
    splits = splits_of(images)
    with closing(train_loader(splits, batch_size=4, seed=3, device=CPU, workers=workers)) as loader:
        yield from loader.epoch(1)
    with closing(eval_loader(splits, splits.val, batch_size=4, device=CPU, workers=workers, tta="ten_crop")) as loader:
        yield from loader


def assert_same_batches(pair, workers):
    files, stored = ([*batches(images, workers)] for images in pair)
    assert len(files) == len(stored) == 3
    for a, b in zip(files, stored, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.index, b.index)
        assert torch.equal(a.labels, b.labels)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_files(pair, workers):
    assert_same_batches(pair, workers)


@pytest.mark.slow
def test_a_worker_that_is_spawned_reads_the_store(pair, monkeypatch):
    monkeypatch.setattr("distillctl.data.stream.start_method", lambda: "spawn")
    expected = [batch.images for batch in batches(pair[0], 0)][:2]
    with closing(train_loader(splits_of(pair[1]), batch_size=4, seed=3, device=CPU, workers=1)) as loader:
        assert all(torch.equal(batch.images, images) for batch, images in zip(loader.epoch(1), expected, strict=True))


def test_a_split_is_pickled_without_its_images(pair):
    """A worker that is spawned gets the store and the rows."""
    stored = pair[1]
    copy = pickle.loads(pickle.dumps(stored.paths))
    assert [one.read_bytes() for one in copy] == [path.read_bytes() for path in pair[0].paths]


def test_subsets_limits_and_slices_keep_image_and_label_together(pair):
    files, stored = pair
    index = torch.tensor([5, 0, 3])
    for a, b in ((files.subset(index), stored.subset(index)), *((limit_training(splits_of(x), 4, 0).train for x in pair),)):
        assert [path.read_bytes() for path in a.paths] == [path.read_bytes() for path in b.paths]
        assert torch.equal(a.labels, b.labels)
    assert [one.row for one in stored.paths[2:4]] == [5, 4]
    targets = StoredImages(stored.store, stored.rows, targets=[*"abcdefgh"]).subset(index)
    assert (targets.targets, len(targets.labels)) == (["f", "a", "d"], 0)


def test_an_image_is_known_by_its_store_and_row(pair):
    stored = pair[1]
    assert str(stored.paths[0]) == f"{stored.store.file}[7]"
    assert stored.paths[0] == StoredImage(stored.store, 7)
    assert shared_images(stored.subset(torch.tensor([1, 2, 3])), stored.subset(torch.tensor([3, 4]))) == 1
    assert shared_images(stored, pair[0]) == shared_images(pair[0], stored) == 0


def test_what_is_wrong_is_said_when_it_is_made(pair):
    store = pair[1].store
    with pytest.raises(DataError, match=r"rows must be int64 of shape \(N,\)"):
        StoredImages(store, torch.zeros(2))
    with pytest.raises(DataError, match=r"labels must be int64 of shape \(8,\)"):
        StoredImages(store, torch.arange(8), torch.zeros(3, dtype=torch.int64))


def stored_bytes(tmp_path, *contents):
    paths = [tmp_path / "parts" / str(i) for i in range(len(contents))]
    paths[0].parent.mkdir(exist_ok=True)
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    labels = torch.zeros(len(contents), dtype=torch.int64)
    return StoredImages(blob_of(paths, tmp_path / "all" / "broken.blob"), torch.arange(len(contents)), labels)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "but empty"), (b"%PDF-1.7 and so on", "but PDF"), (b"no picture at all", "not an image of a known format")],
)
def test_what_is_no_image_is_named(tmp_path, content, message):
    images = stored_bytes(tmp_path, content)
    with pytest.raises(DataError, match=rf"the image `.*broken\.blob\[0\]` cannot be decoded: .*{message}"):
        read_image(images.paths[0])


def test_an_image_of_too_many_pixels_is_named(tmp_path):
    images = stored_bytes(tmp_path, write_image(tmp_path / "large.png").read_bytes())
    with pytest.raises(DataError, match=r"`.*broken\.blob\[0\]` has 24×20 pixels"), open_image(images.paths[0], max_megapixels=0.0001):
        pass


def test_inspection_finds_cut_files_and_those_filled_up_with_zeros(tmp_path):
    Image.effect_noise((200, 200), 60).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    images = stored_bytes(tmp_path, whole, whole[:300], whole[: len(whole) // 2] + bytes(len(whole) // 2))
    splits = Splits(images, None, None, ("a",), (0.5,) * 3, (0.5,) * 3, View(size=12))
    with pytest.raises(DataError, match=r"2 of 3 images cannot be used \(train 2\): `.*blob\[1\]` .*; `.*blob\[2\]` .*its end is missing"):
        inspect(splits)


def test_inspection_measures_white_and_remembers_until_the_larger_file_changes(tmp_path, monkeypatch):
    Image.new("I;16", (20, 20), 900).save(tmp_path / "deep.png")
    images = stored_bytes(tmp_path, (tmp_path / "deep.png").read_bytes(), (tmp_path / "deep.png").read_bytes())
    splits = Splits(images, None, None, ("a",), (0.5,) * 3, (0.5,) * 3, View(size=12))
    assert inspect(splits).white == 1023
    looks = Counter()
    monkeypatch.setattr(Blob, "read", lambda self, row, read=Blob.read: (looks.update([row]), read(self, row))[1])
    assert inspect(splits).white == 1023
    assert not looks
    os.utime(images.store.file, (1, 1))
    assert inspect(splits).white == 1023
    assert {0, 1} <= set(looks)


def test_a_continued_run_compares_names_labels_and_the_larger_file(pair, tmp_path):
    stored = pair[1]
    splits = splits_of(stored)
    before, facts = listing(splits), file_facts(splits)
    size, time_ns = stored.store.file.stat().st_size, stored.store.file.stat().st_mtime_ns
    assert file_states(stored.paths) == [(size, time_ns)] * 8
    moved = Blob(tmp_path / "elsewhere" / "all" / "images.blob", stored.store.bounds)
    moved.file.parent.mkdir(parents=True)
    moved.file.write_bytes(stored.store.file.read_bytes())
    there = replace(stored, store=moved)
    assert listing(splits_of(there)) == before
    assert file_facts(splits_of(there))["file_sizes"] == facts["file_sizes"]
    assert listing(splits_of(replace(stored, rows=stored.rows.flip(0)))) != before
    assert listing(splits_of(replace(stored, labels=1 - stored.labels))) != before
    os.utime(stored.store.file, (1, 1))
    assert file_facts(splits)["file_times"] != facts["file_times"]
    stored.store.file.unlink()
    assert file_states(stored.paths)[0] == (-1, -1)


def test_check_data_finds_in_them_what_it_finds_in_files(pair):
    files, images = pair
    one, other = (examine({"train": part.paths}, View(12), 0)["train"] for part in (files, images))
    assert [finding.digest for finding in one] == [finding.digest for finding in other]
    assert len({finding.digest for finding in one}) == 8


@pytest.mark.parametrize(("content", "kind"), [(b"", "empty"), (b"<html>", "not an image")])
def test_check_data_names_what_is_no_image(tmp_path, content, kind):
    (tmp_path / "blob").write_bytes(content)
    store = Blob(tmp_path / "blob", (0, len(content)))
    (found,) = examine({"train": StoredImages(store, torch.tensor([0]), torch.tensor([0])).paths}, View(12), 0)["train"]
    assert found.kind == kind
