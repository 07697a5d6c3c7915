"""Average precision of boxes as COCO counts it, in float64.

AP of a class at an IoU: the mean of the precision at recalls 0, 0.01, …, 1, where the precision at a recall is the highest at that or any
higher one. Detections of an image are taken by score, each for the free object with which it overlaps most, if by the IoU at least; one
that is left over and lies on a crowd, or is outside of the range of areas, is not counted. `map` is the mean over classes and IoUs
0.5, 0.55, …, 0.95. Lin et al. 2014, arXiv 1405.0312.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou  # type: ignore[import-untyped]

from distillctl import Batch, Evaluation, RunError

NAMES: Mapping[str, str] = MappingProxyType(
    {
        "map": "AP",
        "ap50": "AP50",
        "ap75": "AP75",
        "ap_small": "AP small",
        "ap_medium": "AP medium",
        "ap_large": "AP large",
    }
)
_IOUS = [0.5 + 0.05 * step for step in range(10)]
_RECALLS = torch.linspace(0, 1, 101, dtype=torch.float64)
_ALL = (0.0, 1e10)
_AREAS = {"ap_small": (0.0, 32.0**2), "ap_medium": (32.0**2, 96.0**2), "ap_large": (96.0**2, 1e10)}


class BoxMeter:
    """Keeps detections beside targets. A figure of no object at all is 0."""

    def __init__(self) -> None:
        self._pairs: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

    def add(self, predictions: Sequence[Mapping[str, Tensor]], batch: Batch) -> None:
        """Detections of each image: `boxes` in pixels of the picture, `labels` 0 … K−1, `scores`."""
        for found, target in zip(predictions, batch.targets, strict=True):
            offset, scale = target["offset"].repeat(2), target["scale"].repeat(2)
            truth = {name: target[name] for name in ("labels", "crowd", "area")}
            truth["boxes"] = (target["boxes"] - offset) / scale
            self._pairs.append(tuple({name: value.cpu() for name, value in side.items()} for side in (found, truth)))  # type: ignore[arg-type]

    def state(self) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        return self._pairs

    def merge(self, states: Sequence[Any]) -> None:
        self._pairs = [pair for state in states for pair in state]

    def result(self) -> Evaluation:
        if not self._pairs:
            raise RunError("there is no image to evaluate")
        if not all(found[name].isfinite().all() for found, _ in self._pairs for name in ("boxes", "scores")):
            raise RunError("a detection is not finite")
        by_iou = [self._mean([iou], _ALL) for iou in _IOUS]
        figures = {"map": sum(by_iou) / len(by_iou), "ap50": by_iou[0], "ap75": by_iou[5]}
        figures |= {name: self._mean(_IOUS, area) for name, area in _AREAS.items()}
        return Evaluation({**figures, "count": len(self._pairs)}, self._pairs)

    def _mean(self, ious: Sequence[float], area: tuple[float, float]) -> float:
        classes = sorted({int(label) for _, truth in self._pairs for label in truth["labels"]})
        found = [_average_precision(self._pairs, label, iou, area) for label in classes for iou in ious]
        there = [value for value in found if value is not None]
        return sum(there) / len(there) if there else 0.0


def _average_precision(pairs: Sequence[Any], label: int, least: float, area: tuple[float, float]) -> float | None:
    """Of one class at one IoU; None where there is no object."""
    scores: list[float] = []
    hits: list[bool] = []
    objects = 0
    for found, truth in pairs:
        mine, theirs = found["labels"] == label, truth["labels"] == label
        order = found["scores"][mine].argsort(descending=True, stable=True)[:100]
        boxes, targets = found["boxes"][mine][order].double(), truth["boxes"][theirs].double()
        crowd, size = truth["crowd"][theirs], truth["area"][theirs]
        ignored = crowd | (size < area[0]) | (size > area[1])
        objects += int((~ignored).sum())
        taken = torch.zeros(len(targets), dtype=torch.bool)
        overlap = box_iou(boxes, targets)
        inside = _areas(boxes)[:, None] * torch.ones(len(targets))
        if len(targets) and len(boxes):
            shared = overlap * (inside + _areas(targets)) / (1 + overlap)
            overlap = torch.where(crowd, shared / inside.clamp(min=1e-12), overlap)
        for row, (score, own) in enumerate(zip(found["scores"][mine][order].tolist(), _areas(boxes).tolist(), strict=True)):
            free = (overlap[row] >= least) & (~taken | crowd)
            counted = free & ~ignored
            candidates = counted if counted.any() else free
            if candidates.any():
                best = int(torch.where(candidates, overlap[row], -1.0).argmax())
                taken[best] = True
                if not ignored[best]:
                    scores.append(score)
                    hits.append(True)
            elif area[0] <= own <= area[1]:
                scores.append(score)
                hits.append(False)
    return _area_under(scores, hits, objects) if objects else None


def _area_under(scores: list[float], hits: list[bool], objects: int) -> float:
    if not scores:
        return 0.0
    order = torch.tensor(scores, dtype=torch.float64).argsort(descending=True, stable=True)
    right = torch.tensor(hits, dtype=torch.float64)[order].cumsum(0)
    recall, precision = right / objects, right / torch.arange(1, len(right) + 1)
    precision = precision.flip(0).cummax(0).values.flip(0)
    at = torch.searchsorted(recall, _RECALLS)
    return float(torch.where(at < len(precision), precision[at.clamp(max=len(precision) - 1)], 0.0).mean())


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


__all__ = ["NAMES", "BoxMeter"]
