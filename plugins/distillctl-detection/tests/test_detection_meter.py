"""AP by hand, on a few boxes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distillctl import Batch, RunError
from distillctl_detection.meter import BoxMeter

SMALL, LARGE = [0.0, 0.0, 10.0, 10.0], [100.0, 100.0, 300.0, 300.0]


def target(*boxes: list[float], labels: list[int] | None = None, crowd: list[bool] | None = None) -> dict[str, Any]:
    tensor = torch.tensor(boxes).reshape(-1, 4)
    return {
        "boxes": tensor,
        "labels": torch.tensor(labels or [0] * len(boxes)),
        "crowd": torch.tensor(crowd or [False] * len(boxes), dtype=torch.bool),
        "area": (tensor[:, 2] - tensor[:, 0]) * (tensor[:, 3] - tensor[:, 1]),
        "scale": torch.ones(2),
        "offset": torch.zeros(2),
    }


def found(*boxes: list[float], scores: list[float], labels: list[int] | None = None) -> dict[str, Any]:
    return {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.tensor(labels or [0] * len(boxes)), "scores": torch.tensor(scores)}


def figures(*pairs: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, float]:
    meter = BoxMeter()
    images = torch.zeros(len(pairs), 3, 4, 4)
    index = torch.arange(len(pairs))
    meter.add([answer for answer, _ in pairs], Batch(images, torch.empty(0), index, targets=[truth for _, truth in pairs]))
    meter.merge([meter.state()])
    return dict(meter.result().figures)


def test_what_is_found_exactly_is_found_by_all_measures() -> None:
    result = figures((found(SMALL, LARGE, scores=[0.9, 0.8]), target(SMALL, LARGE)))
    assert result == {"map": 1.0, "ap50": 1.0, "ap75": 1.0, "ap_small": 1.0, "ap_medium": 0.0, "ap_large": 1.0, "count": 1}


def test_precision_at_each_recall() -> None:
    """A hit, a miss, a hit: precision 1 up to half of the objects, then 2/3."""
    answers = found(SMALL, [50.0, 50.0, 60.0, 60.0], LARGE, scores=[0.9, 0.8, 0.7])
    assert figures((answers, target(SMALL, LARGE)))["ap50"] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)


def test_an_object_is_found_once_and_its_class_counts() -> None:
    assert figures((found(SMALL, SMALL, scores=[0.9, 0.8]), target(SMALL, LARGE)))["ap50"] == pytest.approx(51 / 101)
    assert figures((found(SMALL, scores=[0.9], labels=[1]), target(SMALL)))["ap50"] == 0.0


def test_the_overlap_decides_by_how_many_thresholds_a_box_is_right() -> None:
    """An overlap of 0.7 counts at 0.5, 0.55, 0.6, 0.65, 0.7 with room for rounding."""
    result = figures((found([0.0, 0.0, 10.0, 7.1], scores=[0.9]), target(SMALL)))
    assert (result["ap50"], result["ap75"], result["map"]) == (1.0, 0.0, pytest.approx(0.5))


def test_crowds_are_neither_missed_nor_wrong() -> None:
    crowd = target(SMALL, LARGE, crowd=[False, True])
    inside = [110.0, 110.0, 120.0, 120.0]
    for answers in (found(SMALL, scores=[0.5]), found(inside, SMALL, inside, scores=[0.9, 0.5, 0.95])):
        assert figures((answers, crowd))["ap50"] == 1.0


def test_pictures_without_objects_take_false_alarms() -> None:
    right = (found(SMALL, scores=[0.5]), target(SMALL))
    assert figures(right, (found(scores=[]), target()))["ap50"] == 1.0
    assert figures(right, (found(SMALL, scores=[0.9]), target()))["ap50"] == pytest.approx(0.5)


def test_targets_go_back_to_the_picture() -> None:
    truth = target([5.0, 6.0, 10.0, 26.0])
    truth |= {"scale": torch.tensor([0.5, 2.0]), "offset": torch.tensor([5.0, 6.0])}
    assert figures((found(SMALL, scores=[0.5]), truth))["map"] == 1.0


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(RunError, match="not finite"):
        figures((found(SMALL, scores=[float("nan")]), target(SMALL)))
