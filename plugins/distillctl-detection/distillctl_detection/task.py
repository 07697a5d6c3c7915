"""Boxes with classes: the detector's own losses, proposals as rows, levels of the pyramid as maps, AP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms  # type: ignore[import-untyped]

from distillctl import Answer, Batch, Evaluation, Images, Outputs, ProfileError, RunError, Seen, Task
from distillctl_detection.fasterrcnn import FasterRCNN, Proposals
from distillctl_detection.meter import FIGURES, ClassPrecision, DetectionMeter

_OUTPUT = "logits"
_FIRST_STRIDE = 4
_LEVELS = "name levels, `p2` … `p6`, or `c2` … `c5`"
_OVERLAP = 0.5
"""Intersection over union above which two detections are one, as in torchvision's detectors."""
_SAMPLED = (0.0, 0.25, 0.5)
"""Left and upper edges of the boxes of a sample, of the view's side; they are half as wide."""


class Detection(Task):
    """Targets of an image: `boxes` (N, 4), float32, left, top, right and bottom in pixels of the view; `labels` (N,), int64, 0 … K−1;
    `crowd` (N,), bool: from those nothing is learnt; `scale` and `offset` (2,), float32: the view's x is the picture's · scale + offset.

    Rows are the proposals that the student samples in its own forward, with logits of the background and K classes, and as labels
    the classes that they were matched with, 0 for the background. The teacher's logits are those of its box head on its own maps at the
    same boxes. Maps are those of the pyramid (`p2` … `p6`) and of the backbone (`c2` … `c5`).
    """

    metric = "map"
    names: ClassVar[Mapping[str, str]] = FIGURES
    class_figures: ClassVar[Mapping[str, str]] = {"ap": "AP", "ap50": "AP50"}
    counts = "objects"
    gives = frozenset({"labels", "logits"})
    cuts_rows = True
    draws = True
    views = ("flip",)
    refused_views: ClassVar[Mapping[str, str]] = {
        "five_crop": "a crop cuts objects in two",
        "ten_crop": "a crop cuts objects in two",
        "multi_scale": "anchors are made for objects as large as the view shows them",
    }
    answers = "boxes"

    @property
    def outputs(self) -> int:
        return self.data.num_classes

    def sample(self, model: nn.Module, images: Tensor) -> Proposals:
        """The backbone with the pyramid, and the box head on three boxes of each image."""
        if not isinstance(model, FasterRCNN):
            raise RunError("this data set has boxes, and the model is not a detector", hint="`distillctl list-models` has `fasterrcnn`")
        side = images.shape[-1]
        levels = model(images, pyramid_only=True)
        if levels["0"].shape[-1] * _FIRST_STRIDE != side:
            raise RunError(
                f"the detector sees images at {levels['0'].shape[-1] * _FIRST_STRIDE} pixels, where the views and their boxes have {side}",
                hint="leave `image_size` out",
            )
        edges = torch.tensor(_SAMPLED, device=images.device)[:, None] * side
        boxes = [torch.cat([edges, edges, edges + side / 2, edges + side / 2], 1)] * len(images)
        return Proposals(model.classify(levels, boxes, side), boxes)

    def check_output(self, output: object, model: str) -> None:
        """`sample` has looked at it."""

    def check_teacher(self, outputs: int, classes: Sequence[str], place: str) -> tuple[str, ...]:
        if list(classes) != list(self.data.classes):
            known, ours = (f"{len(names)} classes ({', '.join(names[:3])}, …)" for names in (classes, self.data.classes))
            raise ProfileError(f"the teacher in `{place}` knows {known}, and the data set has {ours}: they must be the same, in one order")
        return ()

    def forward(self, student: nn.Module, batch: Batch) -> Outputs:
        device = batch.images.device
        learnt = [{name: one[name][~one["crowd"]].to(device) for name in ("boxes", "labels")} for one in batch.targets]
        for one in learnt:
            one["labels"] = one["labels"] + 1  # 0 is the background
        seeds = [0] * batch.count if batch.seeds is None else batch.seeds.tolist()
        outputs: Outputs = student(batch.images, learnt, seeds)
        return outputs

    def label_loss(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Those of torchvision: `classifier` and `box_reg` of the proposals, `objectness` and `rpn_box_reg` of the anchors."""
        return {name: value.float() for name, value in outputs[_OUTPUT].losses.items()}

    def look(self, teacher: nn.Module, batch: Batch) -> Outputs:
        """The backbone and the pyramid; neither its proposal network nor its box head runs."""
        try:
            outputs: Outputs = teacher(batch.images, pyramid_only=True)
        except KeyError as error:
            raise RunError(f"the feature {error} of the teacher is none of its maps", hint=_LEVELS) from error
        return outputs

    def answer(self, teacher: nn.Module | None, look: Outputs, outputs: Outputs) -> Outputs:
        """The teacher's box head at the boxes that the student sampled."""
        assert teacher is not None
        levels, boxes = look[_OUTPUT], outputs[_OUTPUT].boxes
        logits = teacher.model.classify(levels, boxes, levels["0"].shape[-1] * _FIRST_STRIDE)  # type: ignore[union-attr, operator]
        return {**look, _OUTPUT: Proposals(logits, boxes)}

    def seen(self, outputs: Outputs, batch: Batch) -> Mapping[str, Seen]:
        maps: dict[str, Tensor] = {name: value for name, value in outputs.items() if name != _OUTPUT}
        if odd := [name for name, value in maps.items() if len(value) != batch.count]:
            raise RunError(f"the feature `{odd[0]}` has no map for each image", hint=_LEVELS)
        found = outputs[_OUTPUT]
        rows = Seen(batch, {})
        if isinstance(found, Proposals):
            labels = torch.empty(0, dtype=torch.int64) if found.labels is None else found.labels
            rows = Seen(replace(batch, labels=labels, start=0, total=0), {_OUTPUT: found.logits})
        return {"images": Seen(batch, maps), "rows": rows}

    def predict(self, model: nn.Module, batch: Batch) -> list[dict[str, Tensor]]:
        """Of each image `boxes` (M, 4) in pixels of the picture, `labels` 0 … K−1, and `scores`. Of a view and its mirror image the
        detections are put together and suppressed class by class, as in Detectron (Girshick et al. 2018,
        github.com/facebookresearch/Detectron).
        """
        return _detections(model, batch)

    @classmethod
    def respond(cls, model: nn.Module, batch: Batch, *, outputs: int, top: int | None = None) -> list[list[Answer] | None]:
        """The detections that `predict` gives, sorted by their score."""
        return [_answers(found, top) for found in _detections(model, batch)]

    @classmethod
    def exported(cls, model: nn.Module) -> nn.Module:
        return _OneImage(model)

    def meter(self) -> DetectionMeter:
        return DetectionMeter(self.data.classes)

    def floor(self, images: Images) -> float:
        """Boxes at random places hardly overlap with objects by half."""
        return 0.001

    def chance(self, images: Images) -> float:
        return 0.0

    @classmethod
    def show(cls, figure: str, value: float) -> str:
        return "–" if value < 0 else f"{value:.1%}"

    def breakdown(self, evaluation: Evaluation) -> list[dict[str, Any]]:
        """`ap` and `ap50` of each class, None without an object of it; objects are counted without crowds."""
        found: ClassPrecision = evaluation.answers
        columns = (found.names, found.count.tolist(), found.ap.tolist(), found.ap50.tolist())
        return [
            {"name": name, "count": count, "ap": ap if count else None, "ap50": ap50 if count else None}
            for name, count, ap, ap50 in zip(*columns, strict=True)
        ]


class _OneImage(nn.Module):
    """Boxes, labels and scores of one image as tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training  # not `self.train`, which would reach into the model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.model(images)[0]
        return found["boxes"], found["labels"] - 1, found["scores"]


def _detections(model: nn.Module, batch: Batch) -> list[dict[str, Tensor]]:
    images = batch.images
    if images.ndim == 4:
        every = model(images)
    else:  # the view and its mirror image
        every = [_merged(*pair, images.shape[-1]) for pair in zip(model(images[:, 0]), model(images[:, 1]), strict=True)]
    return [
        {"boxes": _in_picture(found["boxes"].float(), target), "labels": found["labels"] - 1, "scores": found["scores"].float()}
        for found, target in zip(every, batch.targets, strict=True)
    ]


def _merged(found: Mapping[str, Tensor], mirrored: Mapping[str, Tensor], side: int) -> dict[str, Tensor]:
    """The detections of a view and of its mirror image: of those of one class that cover the same by more than half, the likeliest."""
    left, top, right, bottom = mirrored["boxes"].unbind(1)
    both = {key: torch.cat([found[key], mirrored[key]]) for key in ("labels", "scores")}
    both["boxes"] = torch.cat([found["boxes"], torch.stack([side - right, top, side - left, bottom], 1)])
    kept = batched_nms(both["boxes"], both["scores"], both["labels"], _OVERLAP)
    return {key: value[kept] for key, value in both.items()}


def _answers(found: Mapping[str, Tensor], top: int | None) -> list[Answer] | None:
    if not (found["boxes"].isfinite().all() and found["scores"].isfinite().all()):
        return None
    order = found["scores"].sort(descending=True, stable=True).indices[:top]
    columns = (found[name][order].tolist() for name in ("labels", "scores", "boxes"))
    return [Answer(label, score, tuple(box)) for label, score, box in zip(*columns, strict=True)]


def _in_picture(boxes: Tensor, target: Mapping[str, Any]) -> Tensor:
    """Boxes in pixels of the view → of the picture."""
    offset, scale = (target[name].to(boxes.device).repeat(2) for name in ("offset", "scale"))
    moved: Tensor = (boxes - offset) / scale
    return moved


__all__ = ["Detection"]
