"""Average precision as COCO defines it, computed by faster-coco-eval.

A detection is right if it covers an object of its class well enough: the area of their intersection over that of their union is at least a
threshold. By class and threshold, detections of all images are sorted by their score, and precision is averaged over 101 values of recall.
`map` is the mean over classes and the thresholds 0.5, 0.55, … 0.95. At most 100 detections of a class count on an image. Crowds are
neither to be found nor wrong to be found. Sizes of objects are their area in the annotation: below 32², up to 96², and beyond.

The library goes through the images by their number, so that the order in which they were added changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distillctl import Batch, Evaluation, RunError

FIGURES: Mapping[str, str] = {
    "map": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
}
"""Figures of an evaluation, with the words for them; −1, as COCO has it, where there is no object of that size."""
_SIZES = {"ap_small": 1, "ap_medium": 2, "ap_large": 3}
_State = dict[str, Tensor]


@dataclass(frozen=True)
class ClassPrecision:
    """What an evaluation keeps of each class.

    names: of the classes. ap, ap50: float64, (K,), NaN where there is no object of the class. count: int64, (K,), objects without crowds.
    """

    names: tuple[str, ...]
    ap: Tensor
    ap50: Tensor
    count: Tensor


class DetectionMeter:
    """Gathers detections and objects, image by image. Implements `distillctl.Meter`.

    classes: their names, in the order of the labels.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._parts: list[_State] = []

    def add(self, predictions: Sequence[Mapping[str, Tensor]], batch: Batch) -> None:
        """Takes in the detections of a batch.

        predictions: for each image `boxes` (float32, (M, 4): left, top, right and bottom in pixels of the picture), `labels` (int64, (M,),
            0 … K − 1) and `scores` (float32, (M,)). batch: its targets are those of a view (see `Detection`), with
            `area` (N,), float32, of the annotation, and `image_id`, 0-dim int64.
        """
        targets = batch.targets
        if len(predictions) != len(targets):
            raise RunError(f"there are detections for {len(predictions)} images of {len(targets)}")
        found = {f"found_{key}": _joined([one[key] for one in predictions]) for key in ("boxes", "labels", "scores")}
        truth = {f"truth_{key}": _joined([one[key] for one in targets]) for key in ("boxes", "labels", "crowd", "area")}
        images = {key: torch.stack([one[key] for one in targets]).cpu() for key in ("image_id", "scale", "offset")}
        counts = {
            "found_count": torch.tensor([len(one["scores"]) for one in predictions]),
            "truth_count": torch.tensor([len(one["labels"]) for one in targets]),
        }
        scale, offset = (images.pop(key).double().repeat(1, 2).repeat_interleave(counts["truth_count"], 0) for key in ("scale", "offset"))
        truth["truth_boxes"] = (truth["truth_boxes"].double() - offset) / scale
        self._parts.append({**found, **truth, **images, **counts})

    def state(self) -> list[_State]:
        return self._parts

    def merge(self, states: Sequence[list[_State]]) -> None:
        self._parts = [part for state in states for part in state]

    def result(self) -> Evaluation:
        """The figures of `FIGURES`, and `count`, the number of images; `answers` is a `ClassPrecision`.

        Raises:
            distillctl.RunError: nothing was added, an image was added twice, there is no object at all, or a detection is not finite or of
                a class that is not there.
        """
        if not self._parts:
            raise RunError("there is no image to evaluate")
        every = {key: torch.cat([part[key] for part in self._parts]) for key in self._parts[0]}
        self._check(every)
        precision = _precision(every, len(self.classes))
        figures = {
            "map": _mean(precision[..., 0, -1]),
            "ap50": _mean(precision[0, ..., 0, -1]),
            "ap75": _mean(precision[5, ..., 0, -1]),
            **{name: _mean(precision[..., size, -1]) for name, size in _SIZES.items()},
            "count": float(len(every["image_id"])),
        }
        count = torch.bincount(every["truth_labels"][~every["truth_crowd"]], minlength=len(self.classes))
        by_class = [[_mean(part[..., k, 0, -1]) for k in range(len(self.classes))] for part in (precision, precision[:1])]
        ap, ap50 = (torch.tensor(values, dtype=torch.float64).where(count > 0, torch.nan) for values in by_class)
        return Evaluation(figures, ClassPrecision(self.classes, ap, ap50, count))

    def _check(self, every: _State) -> None:
        ids, counts = every["image_id"].unique(return_counts=True)
        if bool((counts > 1).any()):
            raise RunError(f"image {int(ids[counts > 1][0])} was judged twice")
        if not bool((~every["truth_crowd"]).any()):
            raise RunError(f"there is nothing to find on the {len(ids)} images: average precision means nothing there")
        if not (every["found_boxes"].isfinite().all() and every["found_scores"].isfinite().all()):
            raise RunError("a detection is not finite")
        labels = every["found_labels"]
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
            wrong = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
            raise RunError(f"a detection is of class {wrong}, and the classes are 0 to {len(self.classes) - 1}")


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(tensors)).cpu()


def _mean(precision: np.ndarray[Any, Any]) -> float:
    """Of the values that mean something; −1 where none does."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else -1.0


def _precision(every: _State, classes: int) -> np.ndarray[Any, Any]:
    """COCO's table: thresholds, values of recall, classes, sizes (all, small, medium, large), numbers of detections."""
    from faster_coco_eval import COCO, COCOeval_faster  # type: ignore[import-untyped]

    truth = [
        {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": crowd}
        for number, (image, label, box, area, crowd) in enumerate(
            zip(*_rows(every, "truth"), every["truth_area"].tolist(), every["truth_crowd"].int().tolist(), strict=True), 1
        )
    ]
    found = [
        {"image_id": image, "category_id": label, "bbox": box, "score": score}
        for image, label, box, score in zip(*_rows(every, "found"), every["found_scores"].tolist(), strict=True)
    ]
    images = [{"id": number} for number in every["image_id"].tolist()]
    categories = [{"id": label, "name": str(label)} for label in range(classes)]
    known = COCO({"images": images, "categories": categories, "annotations": truth}, print_function=_silent)
    evaluation = COCOeval_faster(known, known.loadRes(found), "bbox", print_function=_silent)
    evaluation.evaluate()
    evaluation.accumulate()
    shape = [len(evaluation.params.iouThrs), len(evaluation.params.recThrs), classes, 1 + len(_SIZES), len(evaluation.params.maxDets)]
    return np.asarray(evaluation.eval["precision"]).reshape(shape)


def _rows(every: _State, kind: str) -> tuple[list[int], list[int], list[list[float]]]:
    """Image, label and box (left, top, width, height) of each."""
    images = every["image_id"].repeat_interleave(every[f"{kind}_count"])
    boxes = every[f"{kind}_boxes"].double()
    return images.tolist(), every[f"{kind}_labels"].tolist(), torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).tolist()


def _silent(*_: object) -> None:
    """For what the library prints."""
