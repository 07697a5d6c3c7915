"""The data sets, from both layouts."""

import hashlib
import os
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from pydantic import ValidationError

from distillctl import DataError, ProfileError, View
from distillctl_cifar.data.build import build_cifar10, build_cifar100
from distillctl_cifar.data.folders import decode
from distillctl_cifar.data.places import preview_cifar10
from distillctl_cifar.options import CIFAR10Options, CIFAR100Options


def build(root, seed=0, **options):
    return build_cifar10(CIFAR10Options(root=root, **options), seed)


def message(root, error=DataError, **options):
    with pytest.raises(error) as caught:
        build(root, **options)
    (problem,) = caught.value.problems
    return problem


def test_folders_give_the_pixels_by_class(folders, pixels):
    splits = build(folders)
    assert splits.classes == ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay")
    assert splits.train.labels.tolist() == [c for c in range(10) for _ in range(4)]
    assert np.array_equal(splits.train.images.numpy(), pixels["train"].reshape(-1, 32, 32, 3))
    assert splits.test.labels.tolist() == [c for c in range(10) for _ in range(2)]
    assert np.array_equal(splits.test.images.numpy(), pixels["test"].reshape(-1, 32, 32, 3))
    assert splits.val is None
    assert splits.view == View(size=32, augment="crop_flip", padding=4)
    assert splits.mean == (0.4914, 0.4822, 0.4465)
    assert str(folders) in splits.description
    assert "40 images for training, none for validation, 20 for the test" in splits.description


def test_torchvisions_files_give_the_same_images(archive, folders):
    ours, theirs = build(folders), build(archive)
    order = theirs.train.labels.argsort(stable=True)  # the archive is cut into batches
    assert torch.equal(theirs.train.images[order], ours.train.images)
    assert torch.equal(theirs.test.images, ours.test.images)
    assert torch.equal(theirs.test.labels, ours.test.labels)
    assert theirs.classes == ours.classes
    assert "torchvision's files" in theirs.description


@pytest.mark.parametrize("below", ["cifar10", "cifar-10-batches-py"], ids=["beside", "the-folder-itself"])
def test_torchvisions_files_may_lie_beside_root(archive, below):
    assert len(build(archive / below).train) == 40


def test_what_lies_in_root_comes_before_what_lies_beside_it(archive, folders, pixels):
    mine = folders.rename(archive / "mine")
    for file in (mine / "train" / "ant").iterdir():
        Image.new("RGB", (32, 32), (9, 9, 9)).save(file)
    splits = build(mine)
    assert "image folders" in splits.description
    assert (splits.train.images[splits.train.labels == 0] == 9).all()
    shutil.copytree(archive / "cifar-10-batches-py", mine / "cifar-10-batches-py")
    assert str(mine / "cifar-10-batches-py") in build(mine).description


def test_damaged_files_of_torchvision(archive):
    with (archive / "cifar-10-batches-py" / "data_batch_2").open("ab") as file:
        file.write(b"x")
    problem = message(archive)
    assert "incomplete or damaged" in problem.message
    assert "download" in problem.hint


class Payload:
    """What makes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


@pytest.mark.parametrize("name", ["data_batch_2", "test_batch", "batches.meta"])
def test_a_pickle_of_somebody_else_is_not_opened(archive, tmp_path, name):
    content = pickle.dumps(Payload(tmp_path / "mark"))
    pickle.loads(content).close()
    (tmp_path / "mark").unlink()  # it would have been executed
    (archive / "cifar-10-batches-py" / name).write_bytes(content)
    assert f"the checksum of `{name}` differs" in message(archive).message
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["data_batch_2", "test_batch", "batches.meta"])
def test_a_pickle_with_a_forged_checksum_builds_nothing(archive, tmp_path, name, monkeypatch):
    content = pickle.dumps({"data": Payload(tmp_path / "mark")}, protocol=2)
    (archive / "cifar-10-batches-py" / name).write_bytes(content)
    forged, cifar = hashlib.md5(content).hexdigest(), torchvision.datasets.CIFAR10
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(cifar, part, [[file, forged if file == name else md5] for file, md5 in getattr(cifar, part)])
    if name == cifar.meta["filename"]:
        monkeypatch.setattr(cifar, "meta", {**cifar.meta, "md5": forged})
    assert "open`, which the published file does not" in message(archive).message
    assert not (tmp_path / "mark").exists()


def test_a_file_is_read_once_so_that_none_is_exchanged_after_its_checksum(archive, monkeypatch):
    opened = []
    read = Path.read_bytes

    def counting(path):
        opened.append(path.name)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", counting)
    monkeypatch.setattr("builtins.open", None)
    build(archive)
    assert sorted(opened) == ["batches.meta", "data_batch_1", "data_batch_2", "test_batch"]


def test_a_pickle_of_python_2_and_an_old_numpy(archive, monkeypatch):
    """As the published files are: text and arrays in byte strings, and the old names of modules."""
    pixels = bytes(range(256)) * 12
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR(I1\n(I1\nI3072\nt"
    array += b"cnumpy\ndtype\n(U\x02u1I0\nI1\ntR(I3\nU\x01|NNNI-1\nI-1\nI0\ntbI00\nT" + len(pixels).to_bytes(4, "little") + pixels + b"tb"
    content = b"\x80\x02}(U\x04data" + array + b"U\x06labels](K\x03eu."
    (archive / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "test_list", [["test_batch", hashlib.md5(content).hexdigest()]])
    test = build(archive).test
    assert test.labels.tolist() == [3]
    assert test.images.numpy().tobytes() == np.frombuffer(pixels, np.uint8).reshape(3, 1024).T.tobytes()


@pytest.fixture
def packed(archive):
    """The archive as it is downloaded."""
    file = archive / "cifar-10-python.tar.gz"
    with tarfile.open(file, "w:gz") as tar:
        tar.add(archive / "cifar-10-batches-py", "cifar-10-batches-py")
    shutil.rmtree(archive / "cifar-10-batches-py")
    return file


@pytest.mark.parametrize("below", ["cifar-10-python.tar.gz", ".", "cifar10"], ids=["the archive", "its folder", "beside"])
def test_the_archive_that_is_downloaded_is_unpacked_once(packed, below):
    assert len(build(packed.parent / below).train) == 40
    assert sorted(p.name for p in packed.parent.iterdir()) == ["cifar-10-batches-py", "cifar-10-python.tar.gz"]
    folder = (packed.parent / "cifar-10-batches-py").stat().st_ino
    os.utime(packed, (1, 1))  # as a copy has another time
    assert len(build(packed.parent / below).train) == 40
    assert (packed.parent / "cifar-10-batches-py").stat().st_ino == folder


def test_an_archive_of_something_else(packed):
    packed.write_bytes(b"<html>moved</html>")
    assert "is broken or cut short" in message(packed).message


def test_download_is_asked_for(archive, tmp_path, monkeypatch):
    def fetch(self):
        shutil.copytree(archive / self.base_folder, f"{self.root}/{self.base_folder}", dirs_exist_ok=True)

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", fetch)
    fresh = tmp_path / "deep" / "cifar10"
    message(fresh, error=ProfileError)
    assert len(build(fresh, download=True).train) == 40
    assert len(build(fresh).train) == 40


def test_download_that_fails(tmp_path, monkeypatch):
    def fetch(self):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", fetch)
    problem = message(tmp_path / "none", download=True)
    assert "cannot be downloaded" in problem.message
    assert "no route to host" in problem.message


def test_nothing_there_names_both_layouts(tmp_path):
    problem = message(tmp_path / "data" / "cifar10", error=ProfileError)
    for part in (
        tmp_path / "data" / "cifar10" / "cifar-10-batches-py",
        tmp_path / "data" / "cifar-10-batches-py",
        f"{tmp_path / 'data' / 'cifar10' / 'train'}/<class>/*.png",
        f"{tmp_path / 'data' / 'cifar10' / 'test'}/<class>/*.png",
    ):
        assert f"`{part}`" in problem.message
    assert "dataset.download=true" in problem.hint


def test_a_preview_says_where_it_lies(folders, tmp_path):
    assert preview_cifar10(CIFAR10Options(root=folders)) == f"CIFAR-10 in `{folders}`"
    nowhere = tmp_path / "nowhere" / "at all"
    assert preview_cifar10(CIFAR10Options(root=nowhere, download=True)) == f"CIFAR-10 will be downloaded into `{nowhere}`"
    with pytest.raises(ProfileError, match="there is no CIFAR-10 at"):
        preview_cifar10(CIFAR10Options(root=nowhere))


def test_the_validation_split_is_stratified_and_seeded(folders):
    whole = build(folders)
    first, again, other = build(folders, 1, val_fraction=0.25), build(folders, 1, val_fraction=0.25), build(folders, 2, val_fraction=0.25)
    assert first.val.labels.tolist() == list(range(10))
    assert first.train.labels.bincount().tolist() == [3] * 10
    assert torch.equal(first.val.images, again.val.images)
    assert not torch.equal(first.val.images, other.val.images)
    together = torch.cat((first.train.images, first.val.images)).flatten(1)
    assert sorted(map(bytes, together.numpy())) == sorted(map(bytes, whole.train.images.flatten(1).numpy()))
    assert torch.equal(first.test.images, whole.test.images)
    assert "30 images for training, 10 for validation, 20 for the test" in first.description


def test_a_validation_fraction_too_small(folders):
    assert "`val_fraction = 0.1`" in message(folders, val_fraction=0.1).message


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5])
def test_bounds_of_the_validation_fraction(value):
    with pytest.raises(ValidationError, match=r"for CIFAR10Options\nval_fraction\n"):
        CIFAR10Options(val_fraction=value)


def test_augmentation_can_be_switched_off(folders):
    assert build(folders, augment="none").view == View(size=32, augment="none", padding=4)


def test_wrong_number_of_classes(folders):
    with pytest.raises(DataError, match="10 classes \\(folders\\) instead of 100"):
        build_cifar100(CIFAR100Options(root=folders), 0)


def test_classes_that_are_numbers_are_sorted_as_numbers(folders):
    for split in ("train", "test"):
        for i, folder in enumerate(sorted((folders / split).iterdir())):
            folder.rename(folders / split / str(i + 1))
    assert build(folders).classes == tuple(str(i) for i in range(1, 11))


def test_test_split_with_another_class(folders):
    (folders / "test" / "jay").rename(folders / "test" / "kiwi")
    assert "`jay` is in only one of them" in message(folders).message


def test_missing_split(folders):
    shutil.rmtree(folders / "test")
    assert f"`{folders / 'test'}` is missing" in message(folders).message


def test_class_without_images(folders):
    for file in (folders / "train" / "elk").iterdir():
        file.rename(file.with_suffix(".txt"))
    assert f"no images in `{folders / 'train' / 'elk'}`" in message(folders).message


def test_image_of_another_size(folders):
    file = folders / "train" / "fox" / "01.png"
    Image.new("RGB", (64, 48)).save(file)
    problem = message(folders)
    assert problem.message == f"`{file}` has 64×48 pixels instead of 32×32"
    assert "imagefolder" in problem.hint


@pytest.mark.parametrize("cut", [0, 20, 200], ids=["empty", "within-the-header", "within-the-pixels"])
def test_image_that_cannot_be_decoded(folders, cut):
    file = folders / "test" / "bee" / "00.png"
    file.write_bytes(file.read_bytes()[:cut])
    assert f"`{file}` cannot be decoded" in message(folders).message


def test_grey_and_hidden_files(folders):
    file = folders / "train" / "ant" / "00.png"
    Image.new("L", (32, 32), 77).save(file)
    (folders / "train" / "ant" / "._01.png").write_bytes(b"what some systems leave behind")
    (folders / "train" / ".thumbs").mkdir()
    splits = build(folders)
    assert len(splits.train) == 40
    assert (splits.train.images[0] == 77).all()


def test_cifar100_has_the_fine_labels(tmp_path, monkeypatch):
    """The published files have both: 100 fine classes, and 20 coarse ones above them."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (200, 3 * 32 * 32), dtype=np.uint8)
    fine = [c for c in range(100) for _ in range(2)]
    content = {"data": pixels, "coarse_labels": [label // 5 for label in fine], "fine_labels": fine}
    names = {"fine_label_names": [f"fine {c:02d}" for c in range(100)], "coarse_label_names": [f"coarse {c:02d}" for c in range(20)]}
    sums = {}
    for name, value in (("train", content), ("test", content), ("meta", names)):
        data = pickle.dumps(value, protocol=2)
        (folder / name).write_bytes(data)
        sums[name] = hashlib.md5(data).hexdigest()
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "meta", {"filename": "meta", "key": "fine_label_names", "md5": sums["meta"]})
    splits = build_cifar100(CIFAR100Options(root=tmp_path), 0)
    assert splits.num_classes == 100
    assert splits.train.labels.tolist() == splits.test.labels.tolist() == fine
    assert splits.classes == tuple(names["fine_label_names"])


@pytest.mark.parametrize(
    ("build", "options", "mean", "std"),
    [
        (build_cifar10, CIFAR10Options, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        (build_cifar100, CIFAR100Options, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    ],
)
def test_statistics_are_those_that_the_published_tables_were_made_with(build, options, mean, std, folders, tmp_path):
    """RepDistiller and mdistiller normalise CIFAR-100 by these; a checkpoint of theirs is judged wrong by others."""
    if build is build_cifar100:
        for split in ("train", "test"):
            for number in range(10, 100):
                (folders / split / f"more {number}").mkdir()
                Image.new("RGB", (32, 32)).save(folders / split / f"more {number}" / "0.png")
    splits = build(options(root=folders), 0)
    assert (splits.mean, splits.std) == (mean, std)


def test_a_huge_image_is_told_by_its_size_without_a_warning(folders, recwarn):
    file = folders / "train" / "fox" / "01.png"
    Image.new("1", (14_000, 14_000)).save(file)
    assert message(folders).message == f"`{file}` has 14000×14000 pixels instead of 32×32"
    assert not recwarn


def test_a_format_that_is_none_of_ours(folders):
    file = folders / "train" / "fox" / "01.png"
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n")
    assert "but PostScript" in message(folders).message


def test_transparency_is_seen_over_white_and_deep_grey_is_not_clipped(tmp_path):
    Image.new("RGBA", (32, 32), (0, 0, 0, 0)).save(tmp_path / "a.png")
    Image.fromarray(np.full((32, 32), 128 * 257, np.uint16)).save(tmp_path / "b.png")
    pixels = decode([tmp_path / "a.png", tmp_path / "b.png"])
    assert pixels.flatten(1).unique(dim=1).tolist() == [[255], [128]]
