"""Images in the arrays of a NumPy file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distillctl.builtin import npz_data
from distillctl.builtin.npz import register_dataset
from distillctl.builtin.npz_data import build
from distillctl.builtin.npz_file import preview
from distillctl.builtin.npz_options import NpzOptions
from distillctl.errors import DataError, ProfileError
from distillctl.testing.datasets import DatasetContract


def pixels(count, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *(shape or (16, 16, 3))), dtype=np.uint8)


def labels(count, classes=3):
    return np.arange(count) % classes


def saved(folder, **arrays):
    folder.mkdir(exist_ok=True)
    np.savez(folder / "x.npz", **arrays)
    return folder / "x.npz"


def medical(folder, classes=3):
    """As MedMNIST's files are: labels in a column."""
    sizes = {"train": 12, "val": 6, "test": 9}
    arrays = {f"{name}_images": pixels(n, 16, 16, seed=n) for name, n in sizes.items()}
    return saved(folder, **arrays, **{f"{name}_labels": labels(n, classes)[:, None].astype(np.uint8) for name, n in sizes.items()})


class TestCarvedContract(DatasetContract):
    spec = register_dataset()

    def values(self, folder):
        return {"root": saved(folder, images=pixels(33), labels=labels(33)), "val_fraction": 0.2, "test_fraction": 0.2}


class TestGivenContract(DatasetContract):
    spec = register_dataset()
    seeded = False

    def values(self, folder):
        return {"root": medical(folder)}


def test_given_splits_with_grey_as_three_channels(tmp_path):
    file = medical(tmp_path)
    splits = build(NpzOptions(root=file), 0)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [12, 6, 9]
    assert torch.equal(splits.test.images, torch.from_numpy(pixels(9, 16, 16, seed=9))[..., None].expand(-1, -1, -1, 3))
    assert splits.test.labels.tolist() == labels(9).tolist()
    assert splits.classes == ("0", "1", "2")
    assert splits.description == f"arrays of `{file}`: train 12, val 6, test 9"
    assert preview(NpzOptions(root=file)) == "3 classes (`0`, `1`, `2`); images of 16×16: train 12, val 6, test 9"
    assert (splits.view.size, splits.view.padding, splits.view.augment) == (16, 2, "crop_flip")
    assert build(NpzOptions(root=file, augment="none"), 0).view.padding == 0


def test_statistics_are_those_of_the_training_part(tmp_path):
    splits = build(NpzOptions(root=saved(tmp_path, images=pixels(30), labels=labels(30)), val_fraction=0.5), 0)
    scaled = splits.train.images.double().flatten(0, 2) / 255
    assert splits.mean == pytest.approx(scaled.mean(0).tolist(), rel=1e-12)
    assert splits.std == pytest.approx(scaled.std(0, correction=0).tolist(), rel=1e-12)


def test_names_of_the_classes_and_other_names_of_the_arrays(tmp_path):
    names = np.array(["pug", "dingo", "chow"])
    splits = build(NpzOptions(root=saved(tmp_path, x_train=pixels(9), y_train=labels(9), classes=names, other=pixels(1))), 0)
    assert splits.classes == ("pug", "dingo", "chow"), "in the order of their labels"
    many = build(NpzOptions(root=saved(tmp_path, train_x=pixels(22), train_y=labels(22, 11)), val_fraction=0), 0)
    assert many.classes[::5] == ("00", "05", "10")


GOOD = {"images": pixels(6), "labels": labels(6)}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": pixels(6).astype(np.float32)}, r"`images` in `.*x\.npz` is float32 of shape \(6, 16, 16, 3\): expected uint8"),
        ({"images": pixels(6, 3, 16, 16)}, r"is uint8 of shape \(6, 3, 16, 16\)"),
        ({"images": pixels(6, 16, 12, 3)}, "are not square: 16×12"),
        ({"labels": np.eye(6, 3)}, r"expected integers of \(6,\)"),
        ({"labels": labels(5)}, r"`labels` in `.*` is int64 of shape \(5,\): expected integers of \(6,\)"),
        ({"labels": labels(6) - 1}, "has the label -1"),
        ({"labels": labels(6) * 2}, "has no training image of `1`, `3`"),
        ({"labels": labels(6) * 0}, "only one class"),
        ({"labels": np.array([{}] * 6)}, "cannot be read as arrays: Object arrays"),
        ({"classes": np.array(["a", "b"])}, "`classes` in `.*` has 2 names, and labels go up to 2"),
        ({"test_images": pixels(2)}, "has `test_images`, but no `test_labels`"),
        ({"test_images": pixels(2, 8, 8, 3), "test_labels": labels(2)}, r"several sizes: train \(16, 16, 3\), test \(8, 8, 3\)"),
    ],
)
def test_arrays_that_are_wrong_are_told(tmp_path, arrays, words):
    with pytest.raises(DataError, match=words):
        preview(NpzOptions(root=saved(tmp_path, **(GOOD | arrays))))


def test_files_that_are_wrong_are_told(tmp_path):
    with pytest.raises(ProfileError, match="there is no file"):
        preview(NpzOptions(root=tmp_path / "x.npz"))
    np.save(tmp_path / "a.npy", pixels(2))
    with pytest.raises(DataError, match=r"is not an `\.npz` file"):
        preview(NpzOptions(root=tmp_path / "a.npy"))
    file = saved(tmp_path, **GOOD)
    file.write_bytes(file.read_bytes().replace(b"\x93NUMPY", b"\x93NUMPX"))
    with pytest.raises(DataError, match="cannot be read as arrays"):
        preview(NpzOptions(root=file))
    file = saved(tmp_path, labels=labels(6), images=pixels(6))
    content = bytearray(file.read_bytes())
    content[content.index(b"images.npy") + 400] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as arrays: Bad CRC"):
        build(NpzOptions(root=file), 0)
    with pytest.raises(DataError, match="no training images: its arrays are `a`"):
        preview(NpzOptions(root=saved(tmp_path, a=pixels(2))))


def test_shares_that_do_not_fit(tmp_path):
    with pytest.raises(ProfileError, match=r"`test_fraction` has no effect: `.*` has images of test"):
        preview(NpzOptions(root=medical(tmp_path), test_fraction=0.1))
    file = saved(tmp_path, **GOOD)
    with pytest.raises(DataError, match=r"`val_fraction = 0\.2` is so small"):
        build(NpzOptions(root=file, val_fraction=0.2), 0)


def test_the_preview_reads_no_images(tmp_path, monkeypatch):
    monkeypatch.setattr(npz_data, "_images", None)
    read, load = [], np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda self, name: read.append(name) or load(self, name))
    preview(NpzOptions(root=saved(tmp_path, **GOOD)))
    assert read == ["labels"]
