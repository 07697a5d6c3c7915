"""The figures are those of pycocotools."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from distillctl import Batch, RunError
from distillctl_coco.views import Canvas, to_picture
from distillctl_detection.meter import FIGURES, DetectionMeter

NAMES = ("ant", "bee", "cat", "dog")
NUMBERS = (1, 5, 6, 90)


def annotation(image, category, box, *, area=None, crowd=0):
    """box: left, top, right, bottom."""
    left, top, right, bottom = box
    whole = (right - left) * (bottom - top)
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [left, top, right - left, bottom - top],
        "area": whole if area is None else area,
        "iscrowd": crowd,
    }


def target_of(image, annotations, size=(400, 600)):
    own = [a for a in annotations if a["image_id"] == image]
    boxes = torch.tensor([a["bbox"] for a in own], dtype=torch.float64).reshape(-1, 4)
    return {
        "boxes": torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1).float(),
        "labels": torch.tensor([NUMBERS.index(a["category_id"]) for a in own], dtype=torch.int64),
        "crowd": torch.tensor([bool(a["iscrowd"]) for a in own], dtype=torch.bool),
        "area": torch.tensor([a["area"] for a in own], dtype=torch.float32),
        "image_id": torch.tensor(image),
        "size": torch.tensor(size),
    }


def detections(rows=()):
    """rows: label, left, top, right, bottom, score."""
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 6)
    return {"boxes": table[:, 1:5].float(), "labels": table[:, 0].long(), "scores": table[:, 5].float()}


def batch_of(targets):
    return Batch(torch.zeros(len(targets), 3, 8, 8), torch.empty(0, dtype=torch.int64), torch.arange(len(targets)), targets=targets)


def in_views(targets, size=320):
    """As an evaluation sees them: in pixels of a view of other size."""
    return [Canvas(size).evaluation(torch.zeros(3, *t["size"].tolist(), dtype=torch.uint8), t)[1] for t in targets]


def ours(targets, found, names=NAMES, size=4):
    meter = DetectionMeter(names)
    for start in range(0, len(targets), size):
        meter.add(found[start : start + size], batch_of(targets[start : start + size]))
    return meter.result()


def theirs(images, annotations, found, numbers=NUMBERS):
    """Figures of pycocotools from what lies in files: category numbers with gaps, left, top, width and height."""
    rows = [
        annotation(image, numbers[label], box.tolist()) | {"score": score}
        for image, one in zip(images, found, strict=True)
        for box, label, score in zip(one["boxes"].double(), one["labels"].tolist(), one["scores"].tolist(), strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = {
            "images": [{"id": i} for i in images],
            "categories": [{"id": n, "name": str(n)} for n in numbers],
            "annotations": [a | {"id": k} for k, a in enumerate(annotations, 1)],
        }
        known.createIndex()
        results = known.loadRes(rows) if rows else COCO()
        evaluation = COCOeval(known, results, "bbox")
        evaluation.params.imgIds = list(images)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][..., 0, -1]
    by_class = [part[part > -1].mean() if (part > -1).any() else np.nan for part in np.moveaxis(precision, -1, 0)]
    return dict(zip(FIGURES, evaluation.stats[:6].tolist(), strict=True)), by_class


def random_case(seed):
    """Objects of all sizes, some crowds, some beyond the picture; detections near them and anywhere, with ties of scores."""
    draw = np.random.default_rng(seed)
    images = sorted(draw.choice(10_000, 14, replace=False).tolist())
    annotations, found = [], []
    for image in images:
        rows = []
        for _ in range(draw.integers(0, 7)):
            side = draw.choice([12.0, 50.0, 160.0], 2) * draw.uniform(0.7, 1.4, 2)
            left, top = draw.uniform(-10, 500), draw.uniform(-10, 350)
            label = int(draw.integers(0, 3))
            box = [float(np.round(v, 1)) for v in (left, top, left + side[0], top + side[1])]
            crowd = int(draw.random() < 0.15)
            annotations.append(annotation(image, NUMBERS[label], box, area=float(side.prod() * draw.uniform(0.4, 1)), crowd=crowd))
            for _ in range(draw.integers(0, 4)):
                moved = np.array(box) + draw.normal(0, 0.1, 4) * np.tile(side, 2)
                rows.append([label if draw.random() < 0.8 else int(draw.integers(0, 4)), *moved, round(draw.random(), 1)])
        for _ in range(draw.integers(0, 5)):
            left, top = draw.uniform(0, 500, 2)
            rows.append(
                [int(draw.integers(0, 4)), left, top, left + draw.uniform(5, 200), top + draw.uniform(5, 200), round(draw.random(), 1)]
            )
        found.append(detections(rows if draw.random() < 0.85 else ()))
    return images, annotations, found


def check(images, annotations, found, expected=None):
    result = ours(in_views([target_of(image, annotations) for image in images]), found)
    want, by_class = theirs(images, annotations, found)
    assert result.figures == {**{key: pytest.approx(value, abs=1e-6) for key, value in want.items()}, "count": len(images)}
    np.testing.assert_allclose(result.answers.ap.numpy(), by_class, atol=1e-6)
    if expected is not None:
        assert result.figures["map"] == pytest.approx(expected, abs=1e-6)
    return result


@pytest.mark.parametrize("seed", range(8))
def test_random_detections(seed):
    result = check(*random_case(seed))
    assert 0 < result.figures["map"] < 1
    assert bool(result.answers.ap.isnan()[3])  # there is no dog
    assert result.answers.count[3] == 0


BOX, FAR = [100, 100, 200, 180], [400, 250, 500, 330]
CASES = {
    "found exactly": ([annotation(1, 5, BOX)], [[(1, *BOX, 0.9)], []], 1.0),
    "nothing found": ([annotation(1, 5, BOX)], [[], []], 0.0),
    "an image without objects has detections": ([annotation(1, 5, BOX)], [[(1, *BOX, 0.5)], [(1, *FAR, 0.9)]], 0.5),
    "another class": ([annotation(1, 5, BOX)], [[(2, *BOX, 0.9)], []], 0.0),
    "found twice": ([annotation(1, 5, BOX)], [[(1, *BOX, 0.5), (1, *BOX, 0.9)], []], 1.0),
    "a tie of scores, the right one first": ([annotation(1, 5, BOX)], [[(1, *BOX, 0.5), (1, *FAR, 0.5)], []], 1.0),
    "a tie of scores, the right one last": ([annotation(1, 5, BOX)], [[(1, *FAR, 0.5), (1, *BOX, 0.5)], []], 0.5),
    "a tie of scores across images": ([annotation(1, 5, BOX)], [[(1, *BOX, 0.5)], [(1, *FAR, 0.5)]], 1.0),
    "within a crowd": (
        [annotation(1, 5, BOX), annotation(1, 5, [300, 200, 600, 400], crowd=1)],
        [[(1, *BOX, 0.5), (1, *FAR, 0.9), (1, 310, 210, 350, 250, 0.8)], []],
        1.0,
    ),
    "a detection without area": ([annotation(1, 5, BOX)], [[(1, 50, 50, 50, 60, 0.9), (1, *BOX, 0.5)], []], 0.5),
    "beyond the picture": ([annotation(1, 5, [-20, -10, 80, 70])], [[(1, -20, -10, 80, 70, 0.9)], []], 1.0),
    "of another size, by the annotation": ([annotation(1, 5, BOX, area=1000)], [[(1, *BOX, 0.9)], []], 1.0),
    "more than a hundred": ([annotation(1, 5, BOX)], [[(1, *FAR, 0.9)] * 100 + [(1, *BOX, 0.5)], []], 0.0),
}


@pytest.mark.parametrize("case", CASES)
def test_made_up_detections(case):
    annotations, rows, expected = CASES[case]
    check([1, 2], annotations, [detections(one) for one in rows], expected)


def test_sizes_are_those_of_the_annotations():
    annotations = [annotation(1, 5, BOX, area=1000), annotation(2, 5, FAR)]
    figures = check([1, 2], annotations, [detections([(1, *BOX, 0.9)]), detections()]).figures
    assert (figures["ap_small"], figures["ap_medium"], figures["ap_large"]) == (1, 0, -1)


def test_labels_are_not_numbers_of_categories():
    """Who hands over 5 for `bee`, whose label is 1, is not judged as if it were right."""
    annotations = [annotation(1, 5, BOX), annotation(1, 1, FAR)]
    targets = [target_of(1, annotations) | {"scale": torch.ones(2), "offset": torch.zeros(2)}]
    assert ours(targets, [detections([(1, *BOX, 0.9), (0, *FAR, 0.9)])]).figures["map"] == 1
    with pytest.raises(RunError, match="a detection is of class 5, and the classes are 0 to 3"):
        ours(targets, [detections([(5, *BOX, 0.9)])])
    assert ours(targets, [detections([(1, *FAR, 0.9), (0, *BOX, 0.9)])]).figures["map"] == 0


@pytest.mark.parametrize("processes", [1, 2, 3, 20])
def test_any_number_of_processes_gives_the_same_bits(processes):
    images, annotations, found = random_case(3)
    targets = in_views([target_of(image, annotations) for image in images])
    meters = [DetectionMeter(NAMES) for _ in range(processes)]
    for number, (target, one) in enumerate(zip(targets, found, strict=True)):
        meters[number % processes].add([one], batch_of([target]))
    states = [meter.state() for meter in meters]
    for meter in (meters[0], meters[-1]):
        meter.merge(states)
        result, whole = meter.result(), ours(targets, found)
        assert result.figures == whole.figures
        assert torch.equal(result.answers.ap.nan_to_num(-1), whole.answers.ap.nan_to_num(-1))
        assert torch.equal(result.answers.ap50.nan_to_num(-1), whole.answers.ap50.nan_to_num(-1))


def test_detections_of_a_view_go_back_to_the_picture():
    (target,) = in_views([target_of(1, [annotation(1, 5, BOX)])])
    assert target["boxes"].tolist() != [BOX]
    assert torch.allclose(to_picture(target["boxes"], target), torch.tensor([BOX], dtype=torch.float64), atol=1e-4)


@pytest.mark.parametrize(
    ("found", "annotations", "message"),
    [
        ([(1, *BOX, float("nan"))], [annotation(1, 5, BOX)], "not finite"),
        ([(1, 0, 0, float("inf"), 3, 0.5)], [annotation(1, 5, BOX)], "not finite"),
        ([(-1, *BOX, 0.5)], [annotation(1, 5, BOX)], "of class -1"),
        ([(1, *BOX, 0.5)], [], "there is nothing to find on the 1 images"),
        ([(1, *BOX, 0.5)], [annotation(1, 5, BOX, crowd=1)], "there is nothing to find"),
    ],
)
def test_what_cannot_be_judged(found, annotations, message):
    targets = in_views([target_of(1, annotations)])
    with pytest.raises(RunError, match=message):
        ours(targets, [detections(found)])


def test_no_image_twice_and_no_image_at_all():
    target = in_views([target_of(7, [annotation(7, 5, BOX)])]) * 2
    with pytest.raises(RunError, match="image 7 was judged twice"):
        ours(target, [detections(), detections()])
    with pytest.raises(RunError, match="there is no image to evaluate"):
        DetectionMeter(NAMES).result()
    with pytest.raises(RunError, match="detections for 1 images of 2"):
        DetectionMeter(NAMES).add([detections()], batch_of(target))
