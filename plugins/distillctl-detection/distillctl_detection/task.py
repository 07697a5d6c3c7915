"""Boxes with classes: the detector's own losses, proposals as rows, levels of the pyramid as maps, AP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from distillctl import Batch, Images, Outputs, ProfileError, RunError, Seen, Task
from distillctl_detection.fasterrcnn import FasterRCNN, Proposals
from distillctl_detection.meter import FIGURES, DetectionMeter

_OUTPUT = "logits"
_FIRST_STRIDE = 4
_LEVELS = "name levels, `p2` … `p6`, or `c2` … `c5`"
_SAMPLED = (0.0, 0.25, 0.5)
"""Left and upper edges of the boxes of a sample, of the view's shorter side; they are half as wide."""


class Detection(Task):
    """Targets of an image: `boxes` (N, 4), float32, left, top, right and bottom in pixels of the view; `labels` (N,), int64, 0 … K−1;
    `crowd` (N,), bool: from those nothing is learnt; `scale` and `offset` (2,), float32: the view's x is the picture's · scale + offset.
    Where views differ in size, `view` (2,), int64, has height and width of each, which lies in the upper left of its image.

    Rows are the proposals that the student samples in its own forward, with logits of the background and K classes, and as labels
    the classes that they were matched with, 0 for the background. The teacher's logits are those of its box head on its own maps at the
    same boxes. Maps are those of the pyramid (`p2` … `p6`) and of the backbone (`c2` … `c5`).
    """

    metric = "map"
    names: ClassVar[Mapping[str, str]] = FIGURES
    gives = frozenset({"labels", "logits"})
    cuts_rows = True
    draws = True

    @property
    def outputs(self) -> int:
        return self.data.num_classes

    def sample(self, model: nn.Module, images: Tensor) -> Proposals:
        """The backbone with the pyramid, and the box head on three boxes of each image."""
        if not isinstance(model, FasterRCNN):
            raise RunError("this data set has boxes, and the model is not a detector", hint="`distillctl list-models` has `fasterrcnn`")
        side, shorter = images.shape[-2], min(images.shape[-2:])
        levels = model(images, pyramid_only=True)
        if levels["0"].shape[-2] * _FIRST_STRIDE != side:
            raise RunError(
                f"the detector sees images at {levels['0'].shape[-2] * _FIRST_STRIDE} pixels, where the views and their boxes have {side}",
                hint="leave `image_size` out",
            )
        edges = torch.tensor(_SAMPLED, device=images.device)[:, None] * shorter
        boxes = [torch.cat([edges, edges, edges + shorter / 2, edges + shorter / 2], 1)] * len(images)
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
        outputs: Outputs = student(batch.images, learnt, seeds, **_sizes(batch))
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
        logits = teacher.model.classify(levels, boxes, levels["0"].shape[-2] * _FIRST_STRIDE)  # type: ignore[union-attr, operator]
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
        """Of each image `boxes` (M, 4) in pixels of the picture, `labels` 0 … K−1, and `scores`."""
        return [
            {"boxes": _in_picture(found["boxes"].float(), target), "labels": found["labels"] - 1, "scores": found["scores"].float()}
            for found, target in zip(model(batch.images, **_sizes(batch)), batch.targets, strict=True)
        ]

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


def _sizes(batch: Batch) -> dict[str, list[tuple[int, int]]]:
    """What a detector is told of views that differ in size."""
    if not batch.targets or "view" not in batch.targets[0]:
        return {}
    return {"sizes": [(height, width) for height, width in torch.stack([target["view"] for target in batch.targets]).tolist()]}


def _in_picture(boxes: Tensor, target: Mapping[str, Any]) -> Tensor:
    """Boxes in pixels of the view → of the picture."""
    offset, scale = (target[name].to(boxes.device).repeat(2) for name in ("offset", "scale"))
    moved: Tensor = (boxes - offset) / scale
    return moved


__all__ = ["Detection"]
