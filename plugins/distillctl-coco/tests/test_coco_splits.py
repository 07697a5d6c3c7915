"""The data set as a whole: layouts, splits, and what commands say of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from distillctl import DataError, ProfileError, cli
from distillctl.commands.resume_check import listing
from distillctl.data.skipping import without_broken
from distillctl.testing import DatasetContract
from distillctl.testing.trees import write_image
from distillctl_coco.data import build
from distillctl_coco.options import CocoOptions
from distillctl_coco.places import preview
from distillctl_coco.plugin import COCO

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 5, "name": "ant"}, {"id": 90, "name": "cat"}]
FIRST = {"train": 0, "val": 100, "valid": 100, "test": 200}


def annotated(split, count):
    """Every image of 24 × 20 pixels has a box less than its number, modulo 3; all but the last category occur."""
    numbers = [FIRST[split] + i for i in range(count)]
    boxes = [(n, 1 if k else 5, [2 + k, 3, 10, 8]) for n in numbers for k in range(n % 3)]
    return {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 24, "height": 20} for n in numbers],
        "annotations": [{"id": i, "image_id": n, "category_id": c, "bbox": b} for i, (n, c, b) in enumerate(boxes, 1)],
        "categories": CATEGORIES,
    }


def coco(root, *, annotations="annotations/instances_{}2017.json", images="{}2017", **counts):
    for split, count in counts.items():
        path = root / annotations.format(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = annotated(split, count)
        path.write_text(json.dumps(content))
        for one in content["images"]:
            write_image(root / images.format(split) / one["file_name"], seed=one["id"])
    return root


def yolo(root, images="images/{}", **counts):
    for split, count in counts.items():
        for n in range(FIRST[split], FIRST[split] + count):
            path = root / images.format(split) / f"{n}.jpg"
            write_image(path, seed=n)
            text = root / images.replace("images", "labels").format(split) / f"{n}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text("".join(f"{k % 2} 0.5 0.5 0.{k + 1} 0.5\n" for k in range(n % 3)))
    (root / "classes.txt").write_text("ant\nbee\n")
    return root


def built(root, seed=0, **options):
    return build(CocoOptions(**({"root": root, "image_size": 32} | options)), seed)


class TestCocoContract(DatasetContract):
    spec = COCO

    def values(self, folder):
        if not folder.exists():
            coco(folder, train=20)
        return {"root": folder, "image_size": 32, "val_fraction": 0.3, "augment": "jitter"}


class TestYoloContract(DatasetContract):
    spec = COCO

    def values(self, folder):
        if not folder.exists():
            yolo(folder, train=20)
        return {"root": folder, "format": "yolo", "image_size": 32, "val_fraction": 0.3}


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("annotations/instances_{}2017.json", "{}2017"),
        ("annotations/instances_{}.json", "{}"),
        ("instances_{}.json", "images"),
        ("{}/_annotations.coco.json", "{}"),
    ],
)
def test_usual_places_of_coco(tmp_path, annotations, images):
    word = "valid" if "_annotations" in annotations else "val"
    splits = built(coco(tmp_path, annotations=annotations, images=images, **{"train": 6, word: 4, "test": 3}))
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [6, 4, 3]
    assert all(path.is_file() for part in (splits.train, splits.val, splits.test) for path in part.paths)
    assert "train 6 images with 6 boxes, val 4 images with 4 boxes, test 3 images with 3 boxes" in splits.description
    assert splits.classes == ("person", "ant", "cat")
    assert not len(splits.train.labels)


@pytest.mark.parametrize("images", ["images/{}", "{}/images", "images/{}2017"])
def test_usual_places_of_yolo(tmp_path, images):
    splits = built(yolo(tmp_path, images=images, train=6, val=4), format="yolo")
    assert [len(splits.train), len(splits.val), splits.test] == [6, 4, None]
    assert [len(target["labels"]) for target in splits.train.targets] == [0, 1, 2, 0, 1, 2]
    assert splits.classes == ("ant", "bee")


def test_other_places_are_named(tmp_path):
    root = coco(tmp_path, annotations="{}.json", images="pictures/{}", train=6, val=4)
    options = {"train": "train.json", "train_images": "pictures/train", "test": "val.json", "test_images": "pictures/val", "val": ""}
    splits = built(root, **options)
    assert [len(splits.train), splits.val, len(splits.test)] == [6, None, 4]
    root = yolo(tmp_path / "more", images="images/first/{}", train=6)
    assert len(built(root, format="yolo", train="images/first/train", val="").train) == 6


def test_a_usual_file_may_stand_for_another_split(tmp_path):
    splits = built(coco(tmp_path, train=6, val=4), val="", test="annotations/instances_val2017.json")
    assert [len(splits.train), splits.val, len(splits.test)] == [6, None, 4]


def test_validation_is_carved_only_where_there_is_none(tmp_path):
    splits = built(coco(tmp_path / "a", train=20), val_fraction=0.25)
    assert [len(splits.train), len(splits.val)] == [15, 5]
    assert "val 5 images with" in splits.description
    assert "carved from train by seed" in splits.description
    numbers = [int(t["image_id"]) for part in (splits.train, splits.val) for t in part.targets]
    assert [int(path.stem) for part in (splits.train, splits.val) for path in part.paths] == numbers
    assert built(tmp_path / "a", val_fraction=0).val is None
    both = built(coco(tmp_path / "b", train=20, val=4), val_fraction=0.25)
    assert [len(both.train), len(both.val)] == [20, 4]
    assert "(carved" not in both.description


def test_some_classes(tmp_path):
    splits = built(coco(tmp_path, train=6), classes=["cat", "person"], val_fraction=0)
    assert splits.classes == ("person", "cat")
    assert [target["labels"].tolist() for target in splits.train.targets] == [[], [], [0], [], [], [0]]
    with pytest.raises(DataError, match="there is no class `dog`"):
        built(tmp_path, classes=["dog"])


def test_splits_with_other_categories_are_refused(tmp_path):
    root = coco(tmp_path, train=6, val=4)
    path = root / "annotations" / "instances_val2017.json"
    path.write_text(json.dumps(annotated("val", 4) | {"categories": [*CATEGORIES, {"id": 91, "name": "dog"}]}))
    with pytest.raises(DataError, match=r"instances_val2017\.json` has other categories than"):
        built(root)


def test_options_reach_the_views(tmp_path):
    root = coco(tmp_path, train=6)
    splits = built(root, augment="jitter", scale_range=[0.5, 1.5], mean=[0.5, 0.25, 0.75])
    canvas = splits.joint
    assert (canvas.size, canvas.augment, canvas.scale_range, canvas.min_visible) == (32, "jitter", (0.5, 1.5), 0.2)
    assert canvas.fill.tolist() == [128, 64, 191]
    assert built(root, augment="jitter", min_visible=0.0).joint.min_visible == 0
    assert [built(root, augment=name).view.mirrored for name in ("none", "flip", "jitter")] == [False, True, True]
    stated = {"max_megapixels": 200.0, "white": 4095.0, "background": [0, 10, 20]}
    assert {name: getattr(built(root, **stated).view, name) for name in stated} == stated


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale_range": [0.5, 2.0]}, "`scale_range` has no effect"),
        ({"min_visible": 0.5, "augment": "none"}, "`min_visible` has no effect"),
        ({"scale_range": [2.0, 0.5], "augment": "jitter"}, "the smallest factor and the largest"),
        ({"classes": ["a", "a"]}, "names a class twice"),
        ({"format": "yolo", "val_images": "x"}, "`val_images` has no effect"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(ValidationError, match=message):
        CocoOptions(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": "nowhere"}, "there is no folder `.*nowhere`"),
        ({"train": "x.json"}, r"there is no annotation file `.*x\.json`"),
        ({"train_images": "x"}, "there is no folder `.*x` with the images of"),
        ({"format": "yolo"}, "there is none of `images/train`, `train/images`, `images/train2017`"),
        ({"format": "yolo", "train": "x"}, "there is no folder `.*x`"),
        ({"format": "yolo", "train": "train2017"}, "is called `images`, beside which"),
        ({"format": "yolo", "train": "images"}, "there is no folder `.*labels` with the text files"),
    ],
)
def test_what_is_not_there_is_told(tmp_path, options, message):
    coco(tmp_path, train=3)
    (tmp_path / "images").mkdir()
    options = {"root": tmp_path} | {key: tmp_path / value if key == "root" else value for key, value in options.items()}
    with pytest.raises(ProfileError, match=message):
        preview(CocoOptions(**options))


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(ProfileError, match=r"there is none of `annotations/instances_train2017\.json`"):
        built(tmp_path)


def test_a_preview(tmp_path):
    root = coco(tmp_path, train=3, val=2)
    places = [root / "annotations" / f"instances_{name}2017.json" for name in ("train", "val")]
    assert preview(CocoOptions(root=root)) == f"boxes in `{root}`: train `{places[0]}`, val `{places[1]}`"


def test_a_run_that_goes_on_compares_boxes(tmp_path):
    splits = built(coco(tmp_path, train=6))
    before = listing(splits)["train"]
    assert listing(built(tmp_path))["train"] == before
    splits.train.targets.boxes[-1, 2] += 1e-4
    assert listing(splits)["train"] != before
    assert listing(replace(splits, train=splits.train.subset(torch.tensor([0, 1, 2, 3, 5, 4]))))["train"] != before


def test_broken_images_are_left_out_with_their_boxes(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLCTL_CACHE", str(tmp_path / "cache"))
    splits = built(coco(tmp_path / "data", train=6))
    splits.train.paths[1].write_bytes(b"")
    left = without_broken(splits, workers=0)
    assert [int(target["image_id"]) for target in left.train.targets] == [0, 2, 3, 4, 5]
    assert [len(target["labels"]) for target in left.train.targets] == [0, 2, 0, 1, 2]
    assert left.joint is splits.joint


def test_check_data_tells_what_is_odd(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = coco(tmp_path / "data", train=6, val=2)
    path = root / "annotations" / "instances_train2017.json"
    content = annotated("train", 6)
    content["images"][3] |= {"width": 20, "height": 24}
    content["annotations"] += [{"id": 77, "image_id": 1, "category_id": 5, "bbox": [1, 2, 0, 3]}]
    path.write_text(json.dumps(content))
    (root / "val2017" / "100.jpg").write_bytes(b"")
    student = '[student]\nname = "torchvision/resnet18"\n[train]\nepochs = 1\nworkers = 0\n'
    (tmp_path / "boxes.toml").write_text(f'[dataset]\nname = "coco"\nroot = "data"\n{student}')
    assert cli.run(["check-data", "boxes.toml", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert "3 classes (`person`, `ant`, `cat`)" in found["data"]
    assert "1 annotation left out" in found["data"]
    assert [(one["split"], one["kind"]) for one in found["broken"]] == [("val", "empty"), ("train", "target")]
    assert found["broken"][1]["problem"] == (
        "`data/train2017/3.jpg`: image 3 has 24×20 pixels when it stands upright, and its annotation says 20×24"
    )
    assert found["remarks"] == [
        "1 of `data/annotations/instances_train2017.json` have a box without width or height, and are left out: annotation 77",
        "classes without a box in train (1): cat",
    ]
