from __future__ import annotations

import os
import shutil
import subprocess
import sys
import unicodedata
from typing import get_args

import pytest
import torch
from pydantic import ValidationError

from distillctl.api.data import FileAugment
from distillctl.builtin.imagefolder import register_dataset
from distillctl.builtin.imagefolder_data import build
from distillctl.builtin.imagefolder_options import ImageFolderOptions
from distillctl.errors import DataError, ProfileError
from distillctl.profile.writing import plain
from distillctl.testing.datasets import DatasetContract
from distillctl.testing.trees import write_image, write_tree

SMALL = {"image_size": 12, "resize": 14, "augment": "crop_flip"}


READING = {"max_megapixels": 200.0, "white": 4095.0, "background": [0, 10, 20]}
"""Options of how files are read."""


def built(root, seed=0, **options):
    return build(ImageFolderOptions(root=root, **({"image_size": 12} | options)), seed)


def names(images):
    return [f"{p.parent.name}/{p.name}" for p in images.paths]


class TestCarvedContract(DatasetContract):
    spec = register_dataset()

    def values(self, folder):
        if not folder.exists():
            write_tree(folder, {"cat": 11, "dog": 12, "emu": 10})
        return {"root": folder, "val_fraction": 0.2, "test_fraction": 0.2, **SMALL}


class TestGivenContract(DatasetContract):
    spec = register_dataset()
    seeded = False

    def values(self, folder):
        if not folder.exists():
            write_tree(folder, {f"{s}/{c}": n for s, n in (("train", 6), ("val", 2), ("test", 3)) for c in ("cat", "dog")})
        return {"root": folder, **SMALL}


def test_given_folders_are_the_splits(tmp_path):
    root = write_tree(tmp_path, {"train/dog": 3, "train/cat": 2, "val/cat": 1, "test/dog": 2})
    splits = built(root)
    assert splits.classes == ("cat", "dog")
    assert names(splits.train) == ["cat/0000.jpg", "cat/0001.jpg", "dog/0000.jpg", "dog/0001.jpg", "dog/0002.jpg"]
    assert splits.train.labels.tolist() == [0, 0, 1, 1, 1]
    assert (names(splits.val), splits.val.labels.tolist()) == (["cat/0000.jpg"], [0])
    assert (names(splits.test), splits.test.labels.tolist()) == (["dog/0000.jpg", "dog/0001.jpg"], [1, 1])
    assert "train 5, val 1 (val), test 2 (test)" in splits.description


@pytest.mark.parametrize("folder", ["val", "valid", "validation"])
def test_names_of_the_validation_folder(tmp_path, folder):
    splits = built(write_tree(tmp_path, {"train/a": 2, "train/b": 2, f"{folder}/a": 1}))
    assert len(splits.val) == 1
    assert len(splits.train) == 4


@pytest.mark.parametrize("names", [("Train", "Val", "Test"), ("TRAIN", "Validation", "TEST"), ("Training", "valid", "testing")])
def test_parts_in_any_case_are_no_classes(tmp_path, names):
    splits = built(write_tree(tmp_path, {f"{folder}/{c}": n for folder, n in zip(names, (4, 2, 3), strict=True) for c in ("a", "b")}))
    assert splits.classes == ("a", "b")
    assert (len(splits.train), len(splits.val), len(splits.test)) == (8, 4, 6)


@pytest.mark.parametrize("key", ["val_fraction", "test_fraction"])
def test_a_share_that_gives_nothing_is_no_silent_wish(tmp_path, key):
    root = write_tree(tmp_path, {"a": 5, "b": 5})
    with pytest.raises(DataError, match=f"`{key} = 0.15` is so small that no class gives an image to the {key[:-9]} split"):
        built(root, **{key: 0.15})
    splits = built(root)  # nobody asked for a tenth, so it is only told
    assert splits.val is None
    assert "no val: no class has enough images for a share of 0.1" in splits.description


def test_two_validation_folders_are_one_too_many(tmp_path):
    with pytest.raises(DataError, match="has both `val` and `valid`"):
        built(write_tree(tmp_path, {"train/a": 1, "train/b": 1, "val/a": 1, "valid/a": 1}))


@pytest.mark.parametrize("layout", ["", "train/"])
def test_missing_parts_are_carved_by_seed_in_the_stated_shares(tmp_path, layout):
    root = write_tree(tmp_path, {f"{layout}a": 20, f"{layout}b": 10})
    splits = built(root, test_fraction=0.2, val_fraction=0.25)
    parts = (splits.train, splits.val, splits.test)
    assert [torch.bincount(p.labels).tolist() for p in parts] == [[12, 6], [4, 2], [4, 2]]
    assert len({p for part in parts for p in part.paths}) == 30
    assert "val 6 (carved by seed), test 6 (carved by seed)" in splits.description


def test_by_default_a_tenth_is_validation_and_nothing_is_test(tmp_path):
    splits = built(write_tree(tmp_path, {"a": 10, "b": 20}))
    assert torch.bincount(splits.val.labels).tolist() == [1, 2]
    assert splits.test is None


def test_no_validation_when_none_is_wanted(tmp_path):
    splits = built(write_tree(tmp_path, {"a": 10, "b": 10}), val_fraction=0.0)
    assert splits.val is None
    assert len(splits.train) == 20


def test_a_fraction_beside_a_folder_has_no_effect_and_says_so(tmp_path):
    root = write_tree(tmp_path, {"train/a": 2, "train/b": 2, "val/a": 1, "test/a": 1})
    with pytest.raises(ProfileError, match="`val_fraction` has no effect"):
        built(root, val_fraction=0.3)
    with pytest.raises(ProfileError, match="`test_fraction` has no effect"):
        built(root, test_fraction=0.3)
    built(root, val_fraction=0.1)  # the default, as a resolved profile states it


def test_a_class_that_is_called_train(tmp_path):
    splits = built(write_tree(tmp_path, {"train": 2, "bus": 2}), val_fraction=0.0)
    assert splits.classes == ("bus", "train")


def test_files_at_any_depth_with_any_case_of_ending(tmp_path):
    root = write_tree(tmp_path, {"a": 2, "b/left": 1, "b/right/far": 1})
    write_image(root / "b" / "UPPER.JPG", seed=9)
    write_image(root / "b" / "x.PnG", seed=10)
    splits = built(root, val_fraction=0.0)
    assert torch.bincount(splits.train.labels).tolist() == [2, 4]


def test_what_is_no_image_is_ignored_and_counted(tmp_path):
    root = write_tree(tmp_path, {"a": 2, "b": 2})
    (root / "a" / ".hidden.jpg").write_bytes(b"x")
    (root / "a" / "notes.txt").write_text("x")
    (root / "README").write_text("x")
    (root / "b" / "dead.jpg").symlink_to(root / "nowhere.jpg")
    write_image(root / ".cache" / "c.jpg")
    write_image(root / "a" / ".thumbs" / "c.jpg")
    splits = built(root, val_fraction=0.0)
    assert splits.classes == ("a", "b")
    assert len(splits.train) == 4
    assert "4 files ignored (`.txt` 1, dead links 1, hidden 1, without an ending 1)" in splits.description


def test_loops_of_links_end(tmp_path):
    root = write_tree(tmp_path / "data", {"a": 2, "b": 2})
    (root / "a" / "again").symlink_to(root / "a", target_is_directory=True)
    (root / "b" / "up").symlink_to(tmp_path, target_is_directory=True)
    splits = built(root, val_fraction=0.0)
    assert int((splits.train.labels == 0).sum()) == 2


def test_links_to_files_and_folders_elsewhere_count(tmp_path):
    store = write_tree(tmp_path / "store", {"x": 2, "y": 3})
    root = tmp_path / "data"
    root.mkdir()
    (root / "b").symlink_to(store / "y", target_is_directory=True)
    (root / "a").mkdir()
    (root / "a" / "one.jpg").symlink_to(store / "x" / "0000.jpg")
    assert torch.bincount(built(root, val_fraction=0.0).train.labels).tolist() == [1, 3]


def test_class_names_in_any_language_meet_across_unicode_forms(tmp_path):
    composed, split_up = (unicodedata.normalize(form, "Möwe") for form in ("NFC", "NFD"))
    assert composed != split_up
    root = write_tree(tmp_path, {f"train/{composed}": 2, "train/鳥": 2, f"val/{split_up}": 1})
    splits = built(root)
    assert splits.classes == (composed, "鳥")
    assert splits.val.labels.tolist() == [0]
    with pytest.raises(DataError, match="both called `Möwe`"):
        built(write_tree(tmp_path / "twice", {composed: 1, split_up: 1}))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse file names that are no UTF-8")
def test_a_name_that_is_no_utf8_gives_a_class_that_can_be_written(tmp_path):
    write_tree(tmp_path, {"a": 1})
    os.mkdir(os.fsencode(tmp_path) + b"/b\xff")
    shutil.copy(tmp_path / "a" / "0000.jpg", os.fsdecode(os.fsencode(tmp_path) + b"/b\xff/0.jpg"))
    splits = built(tmp_path, val_fraction=0.0)
    assert splits.classes == ("a", "b\ufffd")
    splits.description.encode("utf-8")


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "there is no class folder in"),
        ({"a": 0, "b": 0}, "there is no image in the class folders of"),
        ({"train": 2, "test": 2}, "`test` and `train` in .* have no class folders"),
        ({"Train": 2}, "`Train` in .* has no class folders"),
        ({"a": 2}, "there is only one class in .*: `a`"),
        ({"a": 2, "b": 0, "c": 1}, "1 class of .* without an image: `b`"),
        ({"train/a": 1, "train/b": 1, "val/c": 1}, "1 class of .*val` that .*train` lacks: `c`"),
        ({"train/a": 1, "train/b": 1, "test/a": 0}, "there is no image in the class folders of .*test`"),
        ({"test/a": 1, "test/b": 1}, "has a folder `test` of classes, but no folder `train`"),
    ],
)
def test_what_is_wrong_with_the_tree(tmp_path, tree, message):
    for folder in tree:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(DataError, match=message):
        built(write_tree(tmp_path, tree))


def test_a_missing_root_names_what_is_near(tmp_path):
    (tmp_path / "flowers").mkdir()
    with pytest.raises(ProfileError, match=r"no folder .*flowres") as error:
        built(tmp_path / "flowres")
    assert f"did you mean `{tmp_path / 'flowers'}`?" in error.value.problems[0].hint
    with pytest.raises(ProfileError, match="no folder"):
        built(tmp_path / "nothing" / "like" / "it")


def test_a_root_that_leads_nowhere_is_not_its_own_neighbour(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ProfileError, match="no folder") as error:
        built(tmp_path / "loop")
    assert "did you mean" not in error.value.problems[0].hint


def test_a_relative_root_says_where_it_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProfileError) as error:
        built("zzz/yyy")
    assert str(tmp_path) in error.value.problems[0].hint


def test_a_file_is_no_root(tmp_path):
    with pytest.raises(ProfileError, match="is not a folder"):
        built(write_image(tmp_path / "a.jpg"))


def test_copies_of_training_images_are_told(tmp_path):
    root = write_tree(tmp_path, {"train/a": 3, "train/b": 3, "val/a": 2})
    assert "WARNING" not in built(root).description
    shutil.copy(root / "train" / "b" / "0001.jpg", root / "val" / "a" / "0007.jpg")  # another name: not looked for
    shutil.copy(root / "train" / "a" / "0001.jpg", root / "val" / "a" / "0001.jpg")
    assert "copies of training images in `val`: 1" in built(root).description


def test_the_listing_is_part_of_the_description(tmp_path):
    root = write_tree(tmp_path, {"a": 3, "b": 3})
    before = built(root).description
    (root / "a" / "0000.jpg").rename(root / "a" / "9999.jpg")
    assert built(root).description != before


def test_sizes_by_default(tmp_path):
    root = write_tree(tmp_path, {"a": 2, "b": 2})
    view = built(root, image_size=224).view
    assert (view.size, view.resize, view.eval_resize, view.augment) == (224, 256, 256, "random_resized_crop")
    view = built(root, image_size=96, augment="crop_flip", resize=100, eval_resize=96).view
    assert (view.size, view.resize, view.eval_resize) == (96, 100, 96)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": 300}, '`resize` has no effect with `augment = "random_resized_crop"`'),
        ({"resize": 100, "augment": "crop_flip"}, r"`resize` must be at least `image_size` \(224\), not 100"),
        ({"eval_resize": 100}, "`eval_resize` must be at least"),
        ({"mean": [0.5]}, "mean"),
        ({"val_fraction": 1.0}, "val_fraction"),
        ({"augment": "crop"}, "augment"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(ValidationError, match=message):
        ImageFolderOptions(root="x", **options)


def test_augmentations_are_those_that_the_loader_knows():
    assert get_args(ImageFolderOptions.model_fields["augment"].annotation) == get_args(FileAugment)


def test_options_and_preview_import_no_torch():
    code = "import sys, distillctl.builtin.imagefolder, distillctl.builtin.imagefolder_tree; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_how_files_are_read_is_no_part_of_a_run_that_does_not_state_it(tmp_path):
    """Runs of before keep their digest."""
    write_tree(tmp_path / "images", {"a": 4, "b": 4})
    assert plain(ImageFolderOptions(root=tmp_path / "images")).keys().isdisjoint(READING)
    assert all(getattr(built(tmp_path / "images").view, name) is None for name in READING)
    view = built(tmp_path / "images", **READING).view
    assert {name: getattr(view, name) for name in READING} == READING
