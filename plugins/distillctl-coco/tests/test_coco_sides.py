"""Views that keep their aspect ratio: sizes and boxes are torchvision's, and batches are of one kind."""

from __future__ import annotations

import json
import pickle
from contextlib import closing

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from distillctl import DataError
from distillctl.data import eval_loader, train_loader
from distillctl.data.deployed_view import Preprocessing, description
from distillctl.data.stream import own_generator
from distillctl.testing import DatasetContract
from distillctl.testing.trees import write_image
from distillctl_coco.data import build
from distillctl_coco.options import CocoOptions
from distillctl_coco.plugin import COCO
from distillctl_coco.sides import Sides
from distillctl_coco.views import to_picture

SIZES = [(24, 40), (40, 24), (30, 30), (20, 90), (36, 30), (24, 47), (41, 24), (24, 33), (90, 20)]
SIDED = {"resize": "sides", "short_sides": [32, 48], "long_side": 96, "val": ""}
NAMES = [{"id": 4, "name": "ant"}, {"id": 9, "name": "bee"}]


def write(root, kind="coco"):
    """A white rectangle on grey in each picture, and a box around it."""
    for number, (height, width) in enumerate(SIZES):
        path = root / "images" / "train" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", (width, height), (90, 90, 90))
        picture.paste((255, 255, 255), (width // 4, height // 4, width // 2, height // 2))
        picture.save(path)
        text = root / "labels" / "train" / f"{number}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("0 0.375 0.375 0.25 0.25\n" * (number != 3))
    (root / "classes.txt").write_text("ant\nbee\n")
    images = [{"id": n, "file_name": f"train/{n}.png", "width": w, "height": h} for n, (h, w) in enumerate(SIZES)]
    boxes = [{"image_id": n, "category_id": 4, "bbox": [w / 4, h / 4, w / 4, h / 4]} for n, (h, w) in enumerate(SIZES) if n != 3]
    (root / "instances_train.json").write_text(json.dumps({"images": images, "annotations": boxes, "categories": NAMES}))
    return root


def splits_of(root, kind="coco", **options):
    return build(CocoOptions(root=root, format=kind, **{**SIDED, **options}), 0)


def epoch_of(splits, number=0, batch_size=3):
    with closing(train_loader(splits, batch_size=batch_size, seed=5, device=torch.device("cpu"), workers=0)) as loader:
        return list(loader.epoch(number))


class TestSides(DatasetContract):
    spec = COCO
    seeded = False

    def values(self, folder):
        for number in range(9):
            write_image(folder / "images" / f"{number}.jpg", seed=number)
        images = [{"id": n, "file_name": f"{n}.jpg", "width": 24, "height": 20} for n in range(9)]
        (folder / "instances_train.json").write_text(json.dumps({"images": images, "annotations": [], "categories": NAMES}))
        return {"root": folder, **SIDED}


def test_sizes_and_boxes_are_those_of_torchvision():
    sides = Sides([64], 100, mirrored=False)
    theirs = GeneralizedRCNNTransform(64, 100, [0.0] * 3, [1.0] * 3).eval()
    draw = torch.Generator().manual_seed(0)
    for height, width in [(37, 37), (20, 200), (200, 21), *torch.randint(5, 300, (40, 2), generator=draw).tolist()]:
        boxes = torch.tensor([[1.0, 2.0, width - 1.0, height - 2.0]])
        listed, targets = theirs([torch.zeros(3, height, width)], [{"boxes": boxes}])
        own = {"labels": torch.tensor([0]), "crowd": torch.tensor([False]), "area": torch.tensor([1.0]), "image_id": torch.tensor(1)}
        target = {"boxes": boxes, "size": torch.tensor([height, width]), **own}
        view, target = sides.evaluation(torch.zeros(3, height, width, dtype=torch.uint8), target)
        assert tuple(view.shape[1:]) == tuple(target["view"].tolist()) == listed.image_sizes[0]
        torch.testing.assert_close(target["boxes"], targets[0]["boxes"])
        torch.testing.assert_close(to_picture(target["boxes"], target).float(), boxes)


@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_boxes_stay_on_what_they_are_around(tmp_path, kind):
    splits = splits_of(write(tmp_path), kind)
    seen = set()
    for batch in [batch for epoch in range(4) for batch in epoch_of(splits, epoch)]:
        assert all(side % 32 == 0 for side in batch.images.shape[2:])
        for image, index, target in zip(batch.images, batch.index.tolist(), batch.targets, strict=True):
            height, width = target["view"].tolist()
            mirrored = bool(target["scale"][0] < 0)
            seen.add((min(height, width), mirrored))
            assert target["size"].tolist() == list(SIZES[index])
            assert not image[:, height:].any()
            assert not image[:, :, width:].any()
            assert len(target["boxes"]) == (index != 3)
            for box in target["boxes"].tolist():
                white = image[0] > 1.8  # grey is below 0
                rows, columns = white.any(1).nonzero().flatten(), white.any(0).nonzero().flatten()
                found = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
                assert found == pytest.approx(box, abs=2.5)
                assert (min(box[0], width - box[2]) == box[0]) != mirrored
            back = to_picture(target["boxes"][:, [2, 1, 0, 3]] if mirrored else target["boxes"], target)
            high, wide = SIZES[index]
            torch.testing.assert_close(back.float(), torch.tensor([[wide / 4, high / 4, wide / 2, high / 2]] * len(back)).reshape(-1, 4))
    assert {(side, mirrored) for side in (32, 48) for mirrored in (False, True)} <= seen
    assert {short for short, _ in seen} - {32, 48}, "no long side was too long"


def test_an_extent_is_that_of_the_view():
    sides = pickle.loads(pickle.dumps(Sides([20, 31, 47], 60, mirrored=True)))
    for seed in range(20):
        for height, width in SIZES:
            target = {"boxes": torch.zeros(0, 4), "size": torch.tensor([height, width]), "image_id": torch.tensor(0)}
            target |= {"labels": torch.zeros(0, dtype=torch.int64), "crowd": torch.zeros(0, dtype=torch.bool), "area": torch.zeros(0)}
            with own_generator(seed):
                view, _ = sides.training(torch.zeros(3, height, width, dtype=torch.uint8), target)
            with own_generator(seed):
                assert sides.extent(target) == tuple(view.shape[1:])


@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_batches_are_of_wide_images_or_of_others(tmp_path, kind):
    splits = splits_of(write(tmp_path), kind)
    assert splits.view.largest == (64, 96)
    assert splits.view.size == 48
    batches = epoch_of(splits)
    assert all(len({width > height for height, width in (SIZES[i] for i in batch.index.tolist())}) == 1 for batch in batches)
    loose = splits_of(tmp_path, kind, aspect_batches=False)
    assert loose.train.groups is None
    assert loose.view.largest == (96, 96)


def test_evaluations_take_the_last_short_side(tmp_path):
    splits = splits_of(write(tmp_path), short_sides=[48, 32])
    with closing(eval_loader(splits, splits.train, batch_size=4, device=torch.device("cpu"), workers=0)) as loader:
        batches = list(loader)
    views = [tuple(target["view"].tolist()) for batch in batches for target in batch.targets]
    assert views == [splits.joint.sides(*size, short=32) for size in SIZES]
    assert views[0] == (32, 53)
    assert tuple(batches[0].images.shape[2:]) == (64, 96)


def test_a_deployed_student_sees_pictures_as_evaluations_do(tmp_path):
    splits = splits_of(write(tmp_path), val="instances_train.json")
    transform = Preprocessing(description(splits))
    with closing(eval_loader(splits, splits.val, batch_size=1, device=torch.device("cpu"), workers=0)) as loader:
        for path, batch in zip(splits.val.paths, loader, strict=True):
            assert torch.equal(transform(path)[None], batch.images)
            assert torch.equal(torch.tensor(transform.placed(path)[1].scale), batch.targets[0]["scale"])


def test_a_file_that_cannot_be_read_is_told_where_it_is_decoded(tmp_path):
    write(tmp_path)
    (tmp_path / "images" / "train" / "5.png").write_bytes(b"nothing")
    splits = splits_of(tmp_path, "yolo")
    assert splits.train.targets.sizes[4:7].tolist() == [[36, 30], [1, 1], [41, 24]]
    with pytest.raises(DataError, match=r"5\.png` cannot be decoded"):
        epoch_of(splits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"short_sides": [64]}, '`short_sides` has no effect with `resize = "square"`'),
        ({"long_side": 64}, "`long_side` has no effect"),
        ({"aspect_batches": True}, "`aspect_batches` has no effect"),
        ({**SIDED, "image_size": 320}, '`image_size` has no effect with `resize = "sides"`'),
        ({**SIDED, "augment": "jitter"}, '`augment = "jitter"` cuts squares'),
        ({**SIDED, "long_side": 40}, "`long_side` must be at least the largest"),
    ],
)
def test_options_without_effect_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        CocoOptions(**options)
