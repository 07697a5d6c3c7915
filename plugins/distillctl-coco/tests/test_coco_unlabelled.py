"""Training images without labels, beside others and alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from distillctl import DataError, ProfileError, Splits
from distillctl.commands.check_data import check_data
from distillctl.data import train_loader
from distillctl.data.splits import limit_training
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.testing.trees import write_image
from distillctl_coco.data import build
from distillctl_coco.options import CocoOptions

NAMES = [{"id": 4, "name": "ant"}, {"id": 9, "name": "bee"}]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six images with two boxes each, two for validation, and five more in two folders."""
    for split, numbers in (("train", range(10, 16)), ("val", range(2))):
        images = [{"id": n, "file_name": f"{n}.png", "width": 24, "height": 20} for n in numbers]
        for one in images:
            write_image(tmp_path / "data" / "images" / str(one["file_name"]), seed=int(str(one["id"])))
        boxes = [{"image_id": n, "category_id": k, "bbox": [2, 3, 10, 8]} for n in numbers for k in (4, 9)]
        listed = {"images": images, "annotations": boxes, "categories": NAMES}
        (tmp_path / "data" / f"instances_{split}.json").write_text(json.dumps(listed))
    for number in range(5):
        write_image(tmp_path / "more" / ("a" if number < 3 else "b/c") / f"{number}.jpg", seed=100 + number)
    return tmp_path / "data"


def built(root: Path, **values: Any) -> Splits:
    return build(CocoOptions(root=root, image_size=32, **({"unlabelled": root.parent / "more"} | values)), 0)


def test_they_stand_behind_the_others_without_boxes(root: Path) -> None:
    splits = built(root)
    assert splits.train.labels.tolist() == [0] * 6 + [-1] * 5
    assert splits.unlabelled_share == 0.5
    assert f"5 of train without labels, from `{root.parent / 'more'}`: 0.5 of each batch" in splits.description
    targets = [splits.train.targets[n] for n in range(11)]
    assert [len(one["boxes"]) for one in targets] == [2] * 6 + [0] * 5
    assert [int(one["image_id"]) for one in targets] == list(range(10, 21))
    assert splits.train.targets[0]["boxes"].tolist() == [[2, 3, 12, 11]] * 2
    assert not len(built(root, unlabelled=None).train.labels)
    assert len(limit_training(splits, 2, 0).train) == 7


def test_batches_hold_their_share_and_views_know_where_the_picture_lies(root: Path) -> None:
    splits = built(root, unlabelled_share=0.25)
    loader = train_loader(splits, batch_size=4, seed=0, device=torch.device("cpu"), workers=0)
    batches = list(loader.epoch(0))
    loader.close()
    assert [batch.labels.tolist().count(-1) for batch in batches] == [1, 1]
    for batch in batches:
        for label, target in zip(batch.labels.tolist(), batch.targets, strict=True):
            assert len(target["boxes"]) == (2 if label == 0 else 0)
            assert target["size"].tolist() == [20, 24]


def test_no_training_image_may_have_a_label(root: Path) -> None:
    splits = built(root, train="")
    assert splits.classes == ("ant", "bee")
    assert splits.train.labels.tolist() == [-1] * 5
    assert splits.unlabelled_share == 0
    assert splits.val is not None
    assert len(splits.val) == 2
    assert "5 of train without labels" in splits.description
    assert not splits.remarks
    assert len(limit_training(splits, 3, 0).train) == 3
    with pytest.raises(ProfileError, match="nothing says which classes there are"):
        built(root, train="", val="")


def test_what_is_held_out_is_not_learnt_from(root: Path) -> None:
    with pytest.raises(DataError, match=r"2 images of .*images`, such as .*0.png`, would be learnt from and are held out, too"):
        built(root, unlabelled=root / "images")
    with pytest.raises(DataError, match="there is no image in"):
        built(root, unlabelled=(root.parent / "empty").mkdir() or root.parent / "empty")
    with pytest.raises(DataError, match="there is no folder"):
        built(root, unlabelled=root / "none")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"unlabelled": None, "unlabelled_share": 0.3}, "`unlabelled_share` has no effect without `unlabelled`"),
        ({"unlabelled": None, "train": ""}, "without `unlabelled` there is nothing to learn from"),
        ({"train": "", "unlabelled_share": 0.3}, "no image has a label"),
    ],
)
def test_options_that_do_not_fit(root: Path, values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        built(root, **values)


def test_check_data_finds_no_class_for_images_with_boxes(root: Path) -> None:
    profile = root / "p.toml"
    profile.write_text(
        f'[dataset]\nname = "coco"\nroot = "{root.as_posix()}"\nunlabelled = "{(root.parent / "more").as_posix()}"\nimage_size = 32\n'
        '[student]\nname = "fasterrcnn"\n[method]\nname = "none"\n[train]\nepochs = 1\nworkers = 0\n'
    )
    (root.parent / "more" / "copy.png").write_bytes((root / "images" / "10.png").read_bytes())
    found = check_data(load(profile, registry=Registry.load()))
    assert found.splits["train"].images == 12
    assert not found.splits["train"].classes
    (group,) = found.duplicates
    assert {place.label for place in group} == {""}
