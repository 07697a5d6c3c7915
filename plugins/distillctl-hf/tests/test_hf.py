from __future__ import annotations

import contextlib
import io
import pickle
import shutil
import socket
from contextlib import closing

import datasets
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from PIL import Image
from pydantic import ValidationError

from distillctl import DataError, ProfileError, cli
from distillctl.data import train_loader
from distillctl.data.decode import read_image
from distillctl.testing import DatasetContract
from distillctl.testing.trees import write_image, write_tree
from distillctl_hf.data import build
from distillctl_hf.options import ROOT, HFOptions
from distillctl_hf.places import preview
from distillctl_hf.plugin import HF

NAMES = ["ant", "bee", "cat"]
TYPED = Features({"picture": datasets.Image(), "kind": ClassLabel(names=NAMES)})
PLAIN = Features({"picture": {"bytes": Value("binary"), "path": Value("string")}, "label": Value("int64")})


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """Caches of their own, and no network."""
    monkeypatch.setenv("DISTILLCTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")

    asked = []

    def refuse(host, *_args, **_more):
        asked.append(host)
        raise OSError("there is no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert not asked, "a network was asked"


def encoded(tmp_path, seed, ending="png"):
    return write_image(tmp_path / "made" / f"{seed}.{ending}", seed=seed).read_bytes()


def table(tmp_path, count, first=0, features=TYPED, labels=None):
    image, label = features
    rows = [{"bytes": encoded(tmp_path, first + i), "path": None} for i in range(count)]
    values = [i % 3 for i in range(count)] if labels is None else labels
    return Dataset.from_dict({image: rows, label: values}, features=features)


def parts_of(tmp_path, *, features=TYPED, **more):
    return DatasetDict(train=table(tmp_path, 12, features=features), test=table(tmp_path, 6, 100, features=features), **more)


def saved(tmp_path, **more):
    parts_of(tmp_path, **more).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def parquet(tmp_path, **more):
    root = tmp_path / "parquet"
    (root / "data").mkdir(parents=True)
    for name, part in parts_of(tmp_path, **more).items():
        part.to_parquet(root / "data" / f"{name}-00000-of-00001.parquet")
    return root


def built(root, **options):
    return build(HFOptions(**({"root": root, "image_size": 16, "val_fraction": 0.0} | options)), 0)


class TestSavedContract(DatasetContract):
    spec = HF

    def values(self, folder):
        if not folder.exists():
            saved(folder)
        return {"root": folder / "saved", "image_size": 16, "val_fraction": 0.25}


@pytest.mark.parametrize("make", [saved, parquet])
def test_images_and_labels_of_both_layouts(tmp_path, make):
    splits = built(make(tmp_path))
    assert (splits.classes, splits.val) == (tuple(NAMES), None)
    assert splits.train.labels.tolist() == [i % 3 for i in range(12)]
    for part, first in ((splits.train, 0), (splits.test, 100)):
        assert [path.read_bytes() for path in part.paths] == [encoded(tmp_path, first + i) for i in range(len(part))]
    assert "columns `picture` and `kind`: train 12 (split `train`), test 6 (split `test`)" in splits.description


def test_one_table_alone_is_the_training_split(tmp_path):
    table(tmp_path, 12).save_to_disk(tmp_path / "saved")
    splits = built(tmp_path / "saved", val_fraction=0.25)
    assert (len(splits.train), len(splits.val), splits.test) == (9, 3, None)
    assert "val 3 (carved from train by seed)" in splits.description


def test_a_folder_of_images_is_read_where_it_lies(tmp_path):
    root = write_tree(tmp_path / "photos", {"train/dog": 3, "train/cat": 2, "test/cat": 1, "test/dog": 1})
    splits = built(root)
    assert splits.classes == ("cat", "dog")
    assert sorted(path.relative_to(root).as_posix() for path in splits.train.paths)[0] == "train/cat/0000.jpg"
    assert [path.parent.name for path in splits.train.paths] == [splits.classes[label] for label in splits.train.labels]


def test_the_hubs_cache_is_read_without_a_network(tmp_path):
    """As `datasets` leaves it: `OWNER___NAME/CONFIG/VERSION/HASH` with Arrow files."""
    built(parquet(tmp_path))
    shutil.move(tmp_path / "hf" / "parquet", tmp_path / "hf" / "somebody___parquet")
    splits = built(ROOT, hub="somebody/parquet")
    assert (len(splits.train), len(splits.test), splits.classes) == (12, 6, tuple(NAMES))
    with pytest.raises(DataError, match="`somebody/else` cannot be read") as caught:
        built(ROOT, hub="somebody/else")
    assert "`dataset.download = true`" in caught.value.problems[0].hint
    assert not datasets.config.HF_HUB_OFFLINE


@pytest.mark.parametrize("make", [saved, parquet])
def test_files_without_hugging_faces_types(tmp_path, make):
    """Parquet of other tools: bytes in a struct, numbers as labels."""
    splits = built(make(tmp_path, features=PLAIN))
    assert splits.classes == ("0", "1", "2")
    assert [path.read_bytes() for path in splits.train.paths[:2]] == [encoded(tmp_path, i) for i in range(2)]


def test_bytes_alone_and_text_as_labels(tmp_path):
    rows = {"image": [encoded(tmp_path, i) for i in range(4)], "label": ["wren", "owl", "owl", "wren"]}
    Dataset.from_dict(rows, features=Features({"image": Value("binary"), "label": Value("string")})).save_to_disk(tmp_path / "saved")
    splits = built(tmp_path / "saved")
    assert (splits.classes, splits.train.labels.tolist()) == (("owl", "wren"), [1, 0, 0, 1])
    assert splits.train.paths[3].read_bytes() == encoded(tmp_path, 3)


def test_numbers_as_labels_are_sorted_as_numbers(tmp_path):
    table(tmp_path, 4, features=PLAIN, labels=[10, 9, 2, 10]).save_to_disk(tmp_path / "saved")
    assert (built(tmp_path / "saved").classes, built(tmp_path / "saved").train.labels.tolist()) == (("2", "9", "10"), [2, 1, 0, 2])


def test_images_are_decoded_as_files_are(tmp_path):
    """Turned as EXIF says, over white where they are transparent, and grey of 16 bits by its white."""

    def content(image, kind, **how):
        buffer = io.BytesIO()
        image.save(buffer, kind, **how)
        return {"bytes": buffer.getvalue(), "path": None}

    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(np.arange(24 * 20 * 3, dtype=np.uint32).reshape(20, 24, 3).astype(np.uint8))
    turned = content(picture, "PNG", exif=exif)
    clear = content(Image.new("RGBA", (24, 20), (0, 0, 0, 0)), "PNG")
    deep = content(Image.new("I;16", (24, 20), 4095), "PNG")
    Dataset.from_dict({"picture": [turned, clear, deep], "kind": [0, 1, 2]}, features=TYPED).save_to_disk(tmp_path / "saved")
    splits = built(tmp_path / "saved", white=4095.0)
    pixels = [read_image(path, **splits.view.reading) for path in splits.train.paths]
    assert torch.equal(pixels[0], torch.from_numpy(np.rot90(np.asarray(picture), -1).copy()).permute(2, 0, 1))
    assert pixels[1].unique().tolist() == pixels[2].unique().tolist() == [255]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_come_from_worker_processes_as_from_none(tmp_path, workers):
    splits = built(saved(tmp_path))
    with closing(train_loader(splits, batch_size=5, seed=1, device=torch.device("cpu"), workers=workers)) as loader:
        found = {
            index: label for batch in loader.epoch(0) for index, label in zip(batch.index.tolist(), batch.labels.tolist(), strict=True)
        }
    assert found == {i: i % 3 for i in range(12)}


def test_what_a_worker_is_sent_has_no_images(tmp_path):
    paths = built(saved(tmp_path)).train.paths
    sent = pickle.dumps(paths)
    assert len(sent) < sum(len(path.read_bytes()) for path in paths) / 2
    assert pickle.loads(sent)[7].read_bytes() == encoded(tmp_path, 7)


def test_splits_by_other_names_and_left_out(tmp_path):
    more = {"validation": table(tmp_path, 3, 200), "extra": table(tmp_path, 3, 300)}
    root = saved(tmp_path, **more)
    splits = built(root, val_fraction=0.1)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (12, 3, 6)
    splits = built(root, train="test", val="extra", test="", val_fraction=0.1)
    assert (len(splits.train), splits.val.paths[0].read_bytes(), splits.test) == (6, encoded(tmp_path, 300), None)
    splits = built(root, val="")
    assert splits.val is None
    for options, message in (
        ({"test": "tset"}, r"has no split `tset`"),
        ({"val": "test"}, "a split of .* is named twice"),
        ({"val_fraction": 0.3}, "`val_fraction` has no effect: `validation` is the validation split"),
        ({"train": "extra", "val": "", "val_fraction": 0.2}, r"`val_fraction = 0\.2` is so small"),
    ):
        with pytest.raises(DataError, match=message):
            built(root, **options)


def test_columns_that_have_to_be_named(tmp_path):
    one = table(tmp_path, 6)
    two = one.add_column("fine", [0, 1, 0, 1, 0, 1]).cast_column("fine", ClassLabel(names=["a", "b"]))
    two = two.add_column("mask", [None] * 6).cast_column("mask", datasets.Image())
    two.save_to_disk(tmp_path / "two")
    with pytest.raises(DataError, match="2 columns may hold the images: `picture`, `mask`") as caught:
        built(tmp_path / "two")
    assert "`dataset.image = …`" in caught.value.problems[0].hint
    with pytest.raises(DataError, match="2 columns may hold the labels: `kind`, `fine`"):
        built(tmp_path / "two", image="picture")
    splits = built(tmp_path / "two", image="picture", label="fine")
    assert (splits.classes, splits.train.labels.tolist()) == (("a", "b"), [0, 1] * 3)
    for options, message in (({"image": "pixels"}, "no column `pixels`"), ({"image": "kind"}, "`kind` holds no encoded images")):
        with pytest.raises(DataError, match=message):
            built(tmp_path / "two", label="fine", **options)
    one.rename_column("kind", "species").cast_column("species", Value("int64")).save_to_disk(tmp_path / "none")
    with pytest.raises(DataError, match="no column holds labels"):
        built(tmp_path / "none")
    assert built(tmp_path / "none", label="species").classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([-1] * 6, "6 of 6 rows of the split `test` have no label"),
        ([0, 1, None, 0, 1, 2], "1 of 6 rows of the split `test` have no label"),
        ([0, 1, 2, 0, 1, 7], "has a label `7` that the training split lacks"),
    ],
)
def test_rows_without_a_label_that_training_has(tmp_path, labels, message):
    """Many published test splits have none, written as −1."""
    parts = DatasetDict(train=table(tmp_path, 6, features=PLAIN), test=table(tmp_path, 6, 50, features=PLAIN, labels=labels))
    parts.save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=message):
        built(tmp_path / "saved")
    assert built(tmp_path / "saved", test="").test is None


def test_a_class_that_training_lacks_and_one_class_alone(tmp_path):
    table(tmp_path, 4, labels=[0, 1, 0, 1]).save_to_disk(tmp_path / "a")
    with pytest.raises(DataError, match="no image of 1 classes: `cat` is the first"):
        built(tmp_path / "a")
    table(tmp_path, 4, features=PLAIN, labels=[5, 5, 5, 5]).save_to_disk(tmp_path / "b")
    with pytest.raises(DataError, match="there is only one class: `5`"):
        built(tmp_path / "b")


def test_a_script_is_never_run(tmp_path):
    root = parquet(tmp_path)
    (root / "parquet.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\nraise SystemExit\n")
    for call in (lambda: built(root), lambda: preview(HFOptions(root=root))):
        with pytest.raises(DataError, match=r"makes its data by a script, `parquet\.py`, and scripts of data sets are never run"):
            call()
    assert not (tmp_path / "mark").exists()


def test_kinds_that_hold_no_images_are_refused(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="is of the kind `csv`, which is not read") as caught:
        built(tmp_path / "text")
    assert "parquet, arrow, imagefolder" in caught.value.problems[0].hint


def test_what_is_not_there_or_broken_is_told(tmp_path):
    with pytest.raises(ProfileError, match="there is no folder"):
        built(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="cannot be read as a Hugging Face data set"):
        built(tmp_path / "empty")
    root = saved(tmp_path)
    (file,) = (root / "train").glob("*.arrow")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read as a Hugging Face data set"):
        built(root)


def test_options_that_cannot_work(tmp_path):
    both, wrong = {"root": tmp_path, "hub": "a/b"}, {"root": tmp_path, "download": True}
    for options in (both, wrong, {"hub": "a/b/c"}, {"hub": "../b"}, {"hub": "a/b", "train": ""}):
        with pytest.raises(ValidationError):
            HFOptions(**options)


def test_a_preview_reads_nothing(tmp_path):
    assert preview(HFOptions(root=saved(tmp_path))) == f"Hugging Face data set in `{tmp_path / 'saved'}`, written by `save_to_disk`"
    assert preview(HFOptions(hub="a/b")) == "`a/b` of the Hugging Face hub, from its cache"


PROFILE = """
[dataset]
name = "hf"
root = "saved"
image_size = 32
[student]
name = "cifar/resnet8"
[method]
name = "none"
[optimizer]
name = "sgd"
[schedule]
name = "cosine"
[train]
epochs = 1
batch_size = 6
workers = 1
"""


@pytest.mark.slow
def test_a_run_is_trained_and_evaluated_unless_the_images_changed(tmp_path, capfd):
    saved(tmp_path, validation=table(tmp_path, 3, 200))
    (tmp_path / "birds.toml").write_text(PROFILE)
    with contextlib.chdir(tmp_path):
        assert cli.run(["train", "birds.toml"]) == 0
        assert cli.run(["eval", "--tta"]) == 0
        capfd.readouterr()
        shutil.rmtree("saved/test")
        Dataset.save_to_disk(table(tmp_path, 5, 400), "saved/test")
        assert cli.run(["eval"]) != 0
        assert "test" in capfd.readouterr().err
        (tmp_path / "saved" / "train" / "data-00000-of-00001.arrow").write_bytes(b"")
        assert cli.run(["train", "birds.toml", "--fresh"]) != 0
        assert "cannot be read as a Hugging Face data set" in capfd.readouterr().err
