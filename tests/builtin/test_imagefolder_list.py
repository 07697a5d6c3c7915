"""Labels from a CSV file: what its rows mean, and what is said of a row that is wrong."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from distillctl.builtin.imagefolder import register_dataset
from distillctl.builtin.imagefolder_data import build
from distillctl.builtin.imagefolder_options import ImageFolderOptions
from distillctl.builtin.imagefolder_tree import preview
from distillctl.errors import DataError, ProfileError
from distillctl.testing.datasets import DatasetContract
from distillctl.testing.trees import write_image

ROWS = "path,label,split\nx/a.jpg,cat,train\nb.jpg,dog,Training\nc.jpg,cat,test\nd.jpg,dog,valid\n"


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(("x/a", "b", "c", "d")):
        write_image(tmp_path / f"{name}.jpg", seed=number)
    return tmp_path


def options(root, text=None, **given):
    if text is not None:
        (root / "labels.csv").write_text(text, encoding="utf-8")
    return ImageFolderOptions(root=root, image_size=12, **{"labels": "labels.csv", "val_fraction": 0.1, **given})


def built(root, text, **given):
    return build(options(root, text, **given), 0)


def found(root, images):
    return [(path.relative_to(root).as_posix(), label) for path, label in zip(images.paths, images.labels.tolist(), strict=True)]


class TestListContract(DatasetContract):
    spec = register_dataset()

    def values(self, folder):
        if not folder.exists():
            rows = [(f"{n:02}.jpg", ("cat", "dog", "emu")[n % 3]) for n in range(33)]
            for n, (name, _) in enumerate(rows):
                write_image(folder / name, seed=n)
            (folder / "labels.csv").write_text("path,label\n" + "".join(f"{name},{label}\n" for name, label in rows))
        return {"root": folder, "labels": "labels.csv", "val_fraction": 0.2, "test_fraction": 0.2, "image_size": 12, "augment": "crop_flip"}


def test_rows_are_the_splits(root):
    splits = built(root, ROWS)
    assert splits.classes == ("cat", "dog")
    assert found(root, splits.train) == [("x/a.jpg", 0), ("b.jpg", 1)]
    assert (found(root, splits.val), found(root, splits.test)) == ([("d.jpg", 1)], [("c.jpg", 0)])
    assert "val 1 (labels.csv), test 1 (labels.csv)" in splits.description
    assert preview(options(root)) == "2 classes (`cat`, `dog`); images: train 2, test 1, val 1"


def test_without_a_column_of_splits_they_are_carved(root):
    splits = built(root, "label,path,note\ncat,x/a.jpg,\ncat,c.jpg,\ndog,b.jpg,\ndog,d.jpg,\n", val_fraction=0.5)
    assert (len(splits.train), len(splits.val), splits.test) == (2, 2, None)


def test_columns_of_other_names_and_paths_without_an_ending(root):
    """As a contest's `labels.csv` beside `train/`."""
    write_image(root / "train" / "0a1.jpg", seed=7)
    write_image(root / "train" / "0a2.png", seed=8)
    (root / "labels.csv").write_text("id;breed\n0a1;dingo\n0a2;pug\n")
    given = options(root / "train", labels="../labels.csv", columns=["id", "breed"], val_fraction=0)
    splits = build(given, 0)
    assert [path.name for path in splits.train.paths] == ["0a1.jpg", "0a2.png"]
    assert splits.classes == ("dingo", "pug")


def test_natural_order_and_marks_of_a_spreadsheet(root):
    splits = built(root, "\ufeffPath\tLabel\nx/a.jpg\t10\nb.jpg\t 2 \n\n", class_order="natural", val_fraction=0)
    assert splits.classes == ("2", "10")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ROWS + "e.jpg,cat,train\n", r"1 of 5 files that `.*labels\.csv` lists are not in `.*`: `e\.jpg` \(line 6\)"),
        (ROWS + "x/a.jpg,dog,train\n", r"line 6 of `.*labels\.csv` names `.*a\.jpg` again, which line 2 has"),
        (ROWS.replace("dog,valid", ",valid"), r"line 5 of `.*labels\.csv` has no label"),
        (ROWS.replace("b.jpg", " "), r"line 3 of `.*labels\.csv` has no path"),
        (ROWS.replace("valid", "fold1"), r"line 5 of `.*labels\.csv` has the split `fold1`"),
        (ROWS.replace("c.jpg,cat", "c.jpg"), r"line 4 of `.*labels\.csv` has 2 values, and the header names 3 columns"),
        (ROWS.replace("dog,valid", "emu,valid"), r"labels in val that no training image has: `emu`"),
        (ROWS.replace("train\n", "test\n").replace("Training", "test"), r"no row of `.*` is of the train split"),
        ("path,label\n", r"has no rows below its header"),
        ('path,label\n"x/a.jpg,cat\n', r"line 2 of `.*labels\.csv` is not CSV"),
        ("path,label\nx/a.jpg,cat\nb.jpg,cat\n", r"there is only one class in `.*labels\.csv`"),
    ],
)
def test_a_wrong_row_is_told_with_its_line(root, text, words):
    with pytest.raises(DataError, match=words):
        built(root, text)


def test_an_ending_that_several_images_have_is_asked_for(root):
    write_image(root / "b.png", seed=9)
    with pytest.raises(DataError, match=r"line 3 of `.*labels\.csv` leaves out the ending, and there are `b\.jpg`, `b\.png`"):
        built(root, ROWS.replace("b.jpg", "b"))


def test_under_skip_a_missing_file_is_left_to_the_decoding(root):
    splits = built(root, ROWS + "e.jpg,cat,train\n", on_error="skip")
    assert found(root, splits.train) == [("e.jpg", 0), ("x/a.jpg", 0), ("b.jpg", 1)]


def test_columns_and_files_that_are_not_there(root):
    with pytest.raises(ProfileError, match=r"names no column `path`, `label`: it has `id`, `breed`") as caught:
        built(root, "id,breed\n1,pug\n")
    assert 'columns = ["PATH", "LABEL"]' in caught.value.problems[0].hint
    with pytest.raises(ProfileError, match="names no column `fold`"):
        built(root, ROWS, columns=["path", "label", "fold"])
    with pytest.raises(ProfileError, match=r"there is no file `.*none\.csv`"):
        built(root, ROWS, labels="none.csv")
    (root / "labels.csv").write_bytes(b"path,label\n\xff,cat\n")
    with pytest.raises(DataError, match="cannot be read"):
        build(options(root), 0)


def test_a_fraction_for_a_split_that_has_rows_is_refused(root):
    with pytest.raises(ProfileError, match=r"`val_fraction` has no effect: `.*labels\.csv` is the val split"):
        built(root, ROWS, val_fraction=0.3)


@pytest.mark.parametrize(
    ("given", "words"), [({"train": "x"}, "`train` has no effect"), ({"labels": None, "columns": ["a", "b"]}, "`columns`")]
)
def test_options_without_effect_are_refused(root, given, words):
    with pytest.raises(ValidationError, match=words):
        options(root, **given)


def test_arrays_are_sent_to_their_data_set(root):
    (root / "x.npz").touch()
    with pytest.raises(ProfileError) as caught:
        build(ImageFolderOptions(root=root / "x.npz"), 0)
    assert 'name = "npz"' in caught.value.problems[0].hint
