"""`labels = false`: folders are no classes, and a flat folder will do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from distillctl.api.data import FileImages, Splits
from distillctl.builtin.imagefolder_data import build
from distillctl.builtin.imagefolder_options import ImageFolderOptions
from distillctl.builtin.imagefolder_tree import preview
from distillctl.data.splits import limit_training
from distillctl.errors import DataError, ProfileError
from distillctl.testing.trees import write_image, write_tree


def options(root: Path, **values: Any) -> ImageFolderOptions:
    return ImageFolderOptions(root=root, **({"image_size": 12, "labels": False} | values))


def built(root: Path, seed: int = 0, **values: Any) -> Splits:
    return build(options(root, **values), seed)


def names(images: Any, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in images.paths]


def test_a_flat_folder_is_carved_by_seed(tmp_path: Path) -> None:
    for number in range(20):
        write_image(tmp_path / f"{number:02d}.jpg", seed=number)
    splits = built(tmp_path, val_fraction=0.2, test_fraction=0.1)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [15, 3, 2]  # type: ignore[arg-type]
    every = sorted(name for part in (splits.train, splits.val, splits.test) for name in names(part, tmp_path))
    assert every == [f"{number:02d}.jpg" for number in range(20)]
    assert (splits.classes, splits.outputs, len(splits.train.labels), splits.train.targets) == ((), 0, 0, None)
    assert names(built(tmp_path, 1).val, tmp_path) != names(built(tmp_path, 0).val, tmp_path)
    assert built(tmp_path, num_classes=7).outputs == 7
    assert preview(options(tmp_path)) == "no labels; images: train 20, val carved by seed"
    assert len(limit_training(splits, 5, 0).train) == 5


@pytest.mark.parametrize("stated", [{}, {"train": "train", "val": "valid", "test": ""}])
def test_folders_of_splits_are_found_at_any_depth(tmp_path: Path, stated: dict[str, str]) -> None:
    write_tree(tmp_path, {"train": 3, "train/deep/er": 2, "valid/a": 2, "Test": 1, "other": 4})
    splits = built(tmp_path, **stated)
    expected = [f"train/{i:04d}.jpg" for i in range(3)] + [f"train/deep/er/{i:04d}.jpg" for i in range(2)]
    assert names(splits.train, tmp_path) == expected
    assert names(splits.val, tmp_path) == ["valid/a/0000.jpg", "valid/a/0001.jpg"]
    assert (splits.test is None) == bool(stated)


def test_without_train_all_is_train_but_for_other_splits(tmp_path: Path) -> None:
    write_tree(tmp_path, {"cats": 2, "unlabelled": 1, "val": 2})
    write_image(tmp_path / "loose.png")
    splits = built(tmp_path)
    assert names(splits.train, tmp_path) == ["cats/0000.jpg", "cats/0001.jpg", "loose.png", "unlabelled/0000.jpg"]
    assert len(splits.val) == 2  # type: ignore[arg-type]
    assert len(built(tmp_path, train=".", val_fraction=0.2).train) == 5
    assert len(built(tmp_path, train="cats", val="val").train) == 2


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path / "a", {"pics": 1, "test_images": 1})
    with pytest.raises(DataError, match=r"`test_images` in .* looks like a split") as caught:
        built(tmp_path / "a")
    assert '`dataset.test = "test_images"`' in caught.value.problems[0].hint
    assert len(built(tmp_path / "a", test="test_images", val_fraction=0).train) == 1
    write_tree(tmp_path / "b", {"train": 1, "Training": 1})
    with pytest.raises(DataError, match="has both `Training` and `train`"):
        built(tmp_path / "b")
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match="there is no image in"):
        built(tmp_path / "c")
    write_tree(tmp_path / "d", {"train": 2, "val": 1})
    with pytest.raises(ProfileError, match="`val_fraction` has no effect"):
        built(tmp_path / "d", val_fraction=0.3)
    with pytest.raises(DataError, match=r"`test_fraction = 0.2` is so small that none of 2 images comes to the test split"):
        built(tmp_path / "d", test_fraction=0.2)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"labels": None, "num_classes": 3}, "`num_classes` has no effect without `labels = false`"),
        ({"labels": "list.csv", "labelled": "birds"}, "`labelled` has no effect without `labels = false`"),
        ({"columns": ["a", "b"]}, "`columns` has no effect without a file of `labels`"),
        ({"class_order": "natural"}, "`class_order` has no effect with `labels = false`"),
        ({"labels": True}, "labels"),
    ],
)
def test_options_without_effect_are_refused(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        options(tmp_path, **values)


@pytest.mark.parametrize("folder", [".", "train"])
def test_who_has_no_classes_is_told_of_it(tmp_path: Path, folder: str) -> None:
    write_image(tmp_path / folder / "one.jpg")
    with pytest.raises(DataError) as caught:
        built(tmp_path, labels=None)
    assert "`dataset.labels = false`" in caught.value.problems[0].hint


class TestLabelled:
    """Labelled images beside, on which features are judged."""

    def images(self, root: Path, counts: dict[str, int], seed: int = 0) -> FileImages:
        write_image(root / "flat" / "1.jpg")
        write_tree(root / "birds", counts)
        found = built(root / "flat", seed, labelled=root / "birds").labelled
        assert isinstance(found, FileImages)
        return found

    @pytest.mark.parametrize("split", ["test", "val"])
    def test_a_split_of_theirs_is_asked_for(self, tmp_path: Path, split: str) -> None:
        beside = {"val/a": 1, "val/b": 1} if split == "test" else {}
        found = self.images(tmp_path, {"train/a": 2, "train/b": 3, f"{split}/b": 2, **beside})
        asked = found.subset(found.targets.nonzero().flatten())
        assert names(asked, tmp_path / "birds") == [f"{split}/b/0000.jpg", f"{split}/b/0001.jpg"]
        assert asked.labels.tolist() == [1, 1]
        assert len(found) == 7 + len(beside)

    def test_else_a_fifth_of_each_class(self, tmp_path: Path) -> None:
        found = self.images(tmp_path, {"a": 10, "b": 6, "c": 4})
        assert torch.bincount(found.labels[found.targets == 1], minlength=3).tolist() == [2, 1, 0]
        assert not torch.equal(found.targets, self.images(tmp_path, {}, seed=1).targets)

    def test_too_few_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no class of .* has 5 images"):
            self.images(tmp_path, {"a": 4, "b": 4})
