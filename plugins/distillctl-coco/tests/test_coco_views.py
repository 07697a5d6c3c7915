"""Boxes stay on what they are around, whatever is done to the image."""

from __future__ import annotations

import pickle
from contextlib import closing
from dataclasses import replace

import pytest
import torch
from PIL import Image

from distillctl import DataError, FileImages, Splits, View
from distillctl.data import eval_loader, train_loader
from distillctl.data.deployed_view import Preprocessing
from distillctl_coco.targets import BoxTargets
from distillctl_coco.views import Canvas

CPU = torch.device("cpu")
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
FILL = (124, 116, 104)


def target_of(boxes, size, **more):
    count = len(boxes)
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.arange(count),
        "crowd": torch.zeros(count, dtype=torch.bool),
        "area": torch.arange(count) + 100.0,
        "image_id": torch.tensor(7),
        "size": torch.tensor(size),
    } | more


def picture(boxes, size):
    """Black, with a rectangle in another colour at each box."""
    image = torch.zeros(3, *size, dtype=torch.uint8)
    for (left, top, right, bottom), colour in zip(boxes, COLOURS, strict=False):
        image[:, top:bottom, left:right] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    return image


def bounds(view, colour):
    """Left, top, right and bottom of the pixels that have more of this colour than of others; None where there are none."""
    channel = colour.index(255)
    mask = (view[channel] > 128) & (view[[other for other in range(3) if other != channel]] < 128).all(0)
    if not mask.any():
        return None
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


BOXES = [[20, 10, 60, 50], [100, 60, 180, 80], [0, 90, 20, 120]]
SIZE = (120, 200)


@pytest.mark.parametrize("size", [64, 300])
@pytest.mark.parametrize("turned", [False, True])
def test_an_evaluation_shows_the_whole_image_in_the_upper_left(size, turned):
    boxes, sides = ([[box[i] for i in (1, 0, 3, 2)] for box in BOXES], SIZE[::-1]) if turned else (BOXES, SIZE)
    view, target = Canvas(size).evaluation(picture(boxes, sides), target_of(boxes, sides))
    assert (view.shape, view.dtype) == ((3, size, size), torch.uint8)
    short = round(size * 120 / 200)
    outside = view[:, :, short:] if turned else view[:, short:]
    assert torch.equal(outside.amin((1, 2)), torch.tensor(FILL, dtype=torch.uint8))
    assert torch.equal(outside.amax((1, 2)), torch.tensor(FILL, dtype=torch.uint8))
    for box, colour in zip(target["boxes"].tolist(), COLOURS, strict=True):
        assert bounds(view, colour) == pytest.approx(box, abs=1)
    scale = [short / 120, size / 200] if turned else [size / 200, short / 120]
    assert target["scale"].tolist() == pytest.approx(scale)
    assert target["offset"].tolist() == [0, 0]
    assert target["size"].tolist() == list(sides)
    assert target["area"].tolist() == [100, 101, 102]


@pytest.mark.parametrize("augment", ["none", "flip", "jitter"])
def test_boxes_of_training_stay_on_what_they_are_around(augment):
    canvas = Canvas(100, augment, (0.5, 2.0))
    canvas._colours = torch.nn.Identity()
    seen, places, missing = set(), set(), 0
    for seed in range(40):
        torch.manual_seed(seed)
        image, given = picture(BOXES, SIZE), target_of(BOXES, SIZE)
        view, target = canvas.training(image, given)
        assert view.shape == (3, 100, 100)
        assert target["labels"].tolist() == [int(area) - 100 for area in target["area"]]
        for label, box in zip(target["labels"].tolist(), target["boxes"].tolist(), strict=True):
            assert bounds(view, COLOURS[label]) == pytest.approx(box, abs=1.1)
            assert min(box) >= 0
            assert max(box) <= 100
            back = [BOXES[label][i] for i in ((2, 1, 0, 3) if target["scale"][0] < 0 else (0, 1, 2, 3))]
            where = torch.tensor(back) * target["scale"].repeat(2) + target["offset"].repeat(2)
            assert where.clamp(0, 100).tolist() == pytest.approx(box, abs=1e-3)
        missing += 3 - len(target["labels"])
        seen.add(bool(target["scale"][0] < 0))
        places.add(tuple(target["scale"].abs().tolist() + target["offset"].tolist()))
        assert given["boxes"].tolist() == BOXES
        assert torch.equal(image, picture(BOXES, SIZE))
    assert seen == ({False} if augment == "none" else {False, True})
    assert (len(places) > 10, missing > 0) == ((augment == "jitter"),) * 2


def test_draws_come_from_the_seed_alone():
    canvas, images = Canvas(64, "jitter"), []
    again = pickle.loads(pickle.dumps(canvas))
    for one, seed in ((canvas, 3), (again, 3), (canvas, 4)):
        torch.manual_seed(seed)
        images.append(one.training(torch.randint(0, 256, (3, 90, 70), generator=torch.Generator().manual_seed(0), dtype=torch.uint8),
                                   target_of([[5, 5, 50, 60]], (90, 70))))  # fmt: skip
    assert torch.equal(images[0][0], images[1][0])
    assert torch.equal(images[0][1]["boxes"], images[1][1]["boxes"])
    assert not torch.equal(images[0][0], images[2][0])


def test_colours_change_with_jitter_alone():
    grey = torch.full((3, 64, 64), 90, dtype=torch.uint8)
    grey[0] += 60
    for augment in ("flip", "jitter"):
        views = set()
        for seed in range(6):
            torch.manual_seed(seed)
            view, _ = Canvas(64, augment, (1, 1)).training(grey, target_of([], (64, 64)))
            views.add(tuple(view[:, 30, 30].tolist()))
        assert (len(views) > 1) == (augment == "jitter")


def test_an_image_without_boxes():
    for view, target in (
        f(torch.zeros(3, 40, 80, dtype=torch.uint8), target_of([], (40, 80))) for f in (Canvas(64).training, Canvas(64).evaluation)
    ):
        assert view.shape == (3, 64, 64)
        assert (target["boxes"].shape, target["labels"].shape) == ((0, 4), (0,))
        assert (target["boxes"].dtype, target["labels"].dtype, target["crowd"].dtype) == (torch.float32, torch.int64, torch.bool)


def test_boxes_beyond_the_picture_are_cut_in_training_and_stay_in_evaluation():
    given = target_of([[-50, -10, 50, 50], [60, 20, 130, 90]], (60, 100))
    image = torch.zeros(3, 60, 100, dtype=torch.uint8)
    assert Canvas(100).evaluation(image, given)[1]["boxes"].tolist() == [[-50, -10, 50, 50], [60, 20, 130, 90]]
    # What lies beyond the picture does not count as cut away: half of the first box would be.
    assert Canvas(100, min_visible=0.9).training(image, given)[1]["boxes"].tolist() == [[0, 0, 50, 50], [60, 20, 100, 60]]


def test_small_and_hidden_boxes_are_left_out_of_a_training_view():
    boxes = [[10, 10, 30, 30], [50, 50, 51.9, 90], [50, 50, 52, 90]]  # at half of the size the second is less than a pixel wide
    canvas = Canvas(100, "jitter", (1.0, 1.0), min_visible=0.2)
    image = torch.zeros(3, 200, 200, dtype=torch.uint8)
    _, target = canvas.training(image, target_of(boxes, (200, 200)))
    assert target["labels"].tolist() == [0, 2]
    assert len(canvas.evaluation(image, target_of(boxes, (200, 200)))[1]["boxes"]) == 3
    for least, kept in ((0.2, 1), (0.3, 0)):  # twice as large: the view shows a quarter of the picture, and of the box
        zoomed = Canvas(100, "jitter", (2.0, 2.0), min_visible=least)
        counts = []
        for seed in range(30):
            torch.manual_seed(seed)
            _, found = zoomed.training(torch.zeros(3, 100, 100, dtype=torch.uint8), target_of([[0, 0, 100, 100]], (100, 100)))
            counts.append(len(found["boxes"]))
        assert set(counts) == {kept}


def test_shares_become_pixels_where_the_size_was_not_known():
    shares = target_of([[0.1, 0.25, 0.5, 0.75]], (1, 1), area=torch.tensor([0.2]))
    _, target = Canvas(100).evaluation(torch.zeros(3, 40, 200, dtype=torch.uint8), shares)
    assert target["boxes"].tolist() == [pytest.approx([10, 5, 50, 15])]
    assert target["size"].tolist() == [40, 200]
    assert target["area"].tolist() == [pytest.approx(0.2 * 40 * 200)]


@pytest.mark.parametrize("kind", ["training", "evaluation"])
def test_an_image_of_another_size_than_its_annotation_is_refused(kind):
    with pytest.raises(DataError, match="image 7 has 40×60 pixels when it stands upright, and its annotation says 60×40"):
        getattr(Canvas(64), kind)(torch.zeros(3, 60, 40, dtype=torch.uint8), target_of([], (40, 60)))


def tables():
    images = torch.tensor([2, 0, 2, 2, 3])
    boxes = torch.arange(20.0).reshape(5, 4)
    labels, crowd, area = torch.tensor([4, 0, 1, 4, 2]), torch.tensor([0, 1, 0, 0, 1]).bool(), torch.arange(5.0)
    return BoxTargets(torch.tensor([11, 22, 33, 44]), torch.tensor([[5, 6]] * 4), images, boxes, labels, crowd, area)


def test_a_table_gives_what_belongs_to_an_image():
    table = tables()
    assert [len(target["labels"]) for target in table] == [1, 0, 3, 1]
    assert table[2]["labels"].tolist() == [4, 1, 4]
    assert table[2]["boxes"][1].tolist() == [8, 9, 10, 11]
    assert (int(table[-1]["image_id"]), table[-1]["crowd"].tolist(), table[-1]["area"].tolist()) == (44, [True], [4])
    assert [int(target["image_id"]) for target in table[1:3]] == [22, 33]


def test_parts_of_a_table():
    table = tables()
    part = table.subset(torch.tensor([3, 1, 2]))
    assert [int(t["image_id"]) for t in part] == [44, 22, 33]
    assert [t["labels"].tolist() for t in part] == [[2], [], [4, 1, 4]]
    assert part[2]["boxes"].tolist() == table[2]["boxes"].tolist()
    assert len(table.subset(torch.tensor([], dtype=torch.int64))) == 0
    chosen = table.only([1, 4])
    assert [t["labels"].tolist() for t in chosen] == [[], [], [1, 0, 1], []]
    assert [int(t["image_id"]) for t in chosen] == [11, 22, 33, 44]
    assert chosen[2]["area"].tolist() == [0, 2, 3]


def test_a_digest_stands_for_every_number():
    whole = tables().digest()
    assert whole == tables().digest()
    for name in ("image_ids", "sizes", "counts", "boxes", "labels", "crowd", "area"):
        other = tables()
        part = getattr(other, name)
        setattr(other, name, ~part if name == "crowd" else part + (torch.arange(part.numel()) == part.numel() - 1).reshape(part.shape))
        assert other.digest() != whole, name


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(6):
        sides = (40 + i, 60)
        Image.fromarray(picture([BOXES[0]], sides).permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
    sizes = torch.tensor([[40 + i, 60] for i in range(6)])
    rows = torch.tensor([0, 1, 2, 4, 5])
    targets = BoxTargets(torch.arange(6), sizes, rows, torch.tensor([BOXES[0]] * 5).float(), rows, rows > 4, rows.float())
    images = FileImages(sorted(folder.iterdir()), targets=targets)
    return Splits(images, images, None, ("a",), (0.5,) * 3, (0.5,) * 3, View(size=64), "made up", joint=Canvas(64, "jitter", (0.5, 2)))


def epoch_of(splits, **more):
    with closing(train_loader(splits, batch_size=4, seed=7, device=CPU, **more)) as loader:
        return [target | {"image": image} for batch in loader.epoch(1) for image, target in zip(batch.images, batch.targets, strict=True)]


@pytest.mark.slow
def test_any_number_of_workers_sees_the_same(splits):
    assert len(epoch_of(splits, workers=0)) == 6
    for one, other in zip(epoch_of(splits, workers=0), epoch_of(splits, workers=2), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_what_a_batch_has(splits):
    with closing(eval_loader(splits, splits.val, batch_size=4, device=CPU, workers=0)) as loader:
        first, second = loader
    kinds = {key: (value.dtype, value.ndim) for key, value in first.targets[0].items()}
    assert kinds == {
        "boxes": (torch.float32, 2),
        "labels": (torch.int64, 1),
        "crowd": (torch.bool, 1),
        "area": (torch.float32, 1),
        "image_id": (torch.int64, 0),
        "size": (torch.int64, 1),
        "scale": (torch.float32, 1),
        "offset": (torch.float32, 1),
    }
    assert [int(target["image_id"]) for target in (*first.targets, *second.targets)] == list(range(6))
    assert [len(target["labels"]) for target in (*first.targets, *second.targets)] == [1, 1, 1, 0, 1, 1]
    beside = first.images[0, :, 43:]
    assert torch.allclose(beside, (torch.tensor(FILL)[:, None, None] / 255 - 0.5).div(0.5).expand_as(beside), atol=1e-5)


def test_the_composition_of_a_batch_changes_nothing(splits):
    alone = replace(splits, val=splits.val.subset(torch.tensor([4])))
    with closing(eval_loader(alone, alone.val, batch_size=4, device=CPU, workers=0)) as loader:
        (one,) = loader
    with closing(eval_loader(splits, splits.val, batch_size=6, device=CPU, workers=0)) as loader:
        (every,) = loader
    assert torch.equal(one.images[0], every.images[4])
    assert torch.equal(one.targets[0]["boxes"], every.targets[4]["boxes"])


@pytest.mark.parametrize("size", [(50, 80), (90, 33), (7, 300)])
def test_a_deployed_student_sees_the_same_canvas(size):
    """Without this package, to the bit; and its boxes come back by the same numbers."""
    torch.manual_seed(1)
    image = torch.randint(256, (3, *size), dtype=torch.uint8)
    wanted, target = Canvas(64, "flip", fill=(1, 2, 3)).evaluation(image, target_of([], size))
    told = {"channels": 3, "size": 64, "resize": 64, "mean": [0.5] * 3, "std": [0.2] * 3, "canvas": [1, 2, 3]}
    view, placement = Preprocessing(told).placed(image)
    assert torch.equal(view, wanted)
    assert torch.equal(torch.tensor(placement.scale), target["scale"])
    assert torch.equal(torch.tensor(placement.offset), target["offset"])
