"""Boxes with classes: the detector's own losses, proposals as rows, levels of the pyramid as maps, AP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms  # type: ignore[import-untyped]

from distillctl import Answer, Batch, Evaluation, Guesses, Images, Outputs, ProfileError, Relabels, RunError, Seen, Task
from distillctl_detection.detector import Detector, NotFiniteError, Proposals, finite_heads
from distillctl_detection.foreign import ForeignDetector
from distillctl_detection.meter import FIGURES, ClassPrecision, DetectionMeter

_OUTPUT = "logits"
_LEVELS = "name levels, such as `p4` or `c4`: `distillctl show MODEL` lists them"
_WEIGHS = "`fasterrcnn` does"
_BOXES_ALONE = "`pseudo` learns from its boxes"
_OVERLAP = 0.5
"""Intersection over union above which two detections are one, as in torchvision's detectors."""


class Detection(Task):
    """Targets of an image: `boxes` (N, 4), float32, left, top, right and bottom in pixels of the view; `labels` (N,), int64, 0 … K−1;
    `crowd` (N,), bool: from those nothing is learnt; `scale` and `offset` (2,), float32: the view's x is the picture's · scale + offset.
    Where views differ in size, `view` (2,), int64, has height and width of each, which lies in the upper left of its image.

    Rows are the places from which the student learns in its own forward: proposals that it samples, or anchors (see `Proposals`), with
    logits of the background and K classes, and as labels the classes that they were matched with, 0 for the background; of a detector with
    sigmoids each place and class is a row of two. The teacher's logits are those of its head on its own maps at the same places. Maps are
    those of the pyramid (`p2` …) and of the backbone (`c2` …).
    """

    metric = "map"
    names: ClassVar[Mapping[str, str]] = FIGURES
    class_figures: ClassVar[Mapping[str, str]] = {"ap": "AP", "ap50": "AP50"}
    counts = "objects"
    gives = frozenset({"labels", "logits"})
    cuts_rows = True
    draws = True
    relabels = True
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

    def sample(self, model: nn.Module, images: Tensor) -> Any:
        """`Proposals`: backbone, pyramid, and the head at three places of each image; of a foreign detector what it finds."""
        if isinstance(model, ForeignDetector):
            return model(images)
        if not isinstance(model, Detector):
            raise RunError("this data set has boxes, and the model is not a detector", hint="`distillctl list-models` has `fasterrcnn`")
        side = images.shape[-2]
        levels = model(images, pyramid_only=True)
        if (seen := model.side_of(levels)) != side:
            raise RunError(
                f"the detector sees images at {seen} pixels, where the views and their boxes have {side}", hint="leave `image_size` out"
            )
        places = model.some_places(images)
        return Proposals(model.classify(levels, places, side), places)

    def adopt(self, model: nn.Module) -> tuple[str, ...]:
        if not isinstance(model, ForeignDetector):
            return ()
        unknown = model.adopt(self.data.classes)
        if len(unknown) == self.outputs:
            raise ProfileError(
                f"the file knows none of the classes of the data set ({_some(self.data.classes)}): its own are {_some(model.classes)}",
                hint="`classes` gives them the names that the data set has, in the file's order",
            )
        told = f"the file does not know {len(unknown)} of {self.outputs} classes and never finds them: {_some(unknown)}"
        return (told,) if unknown else ()

    def check_output(self, output: object, model: str) -> None:
        """`sample` has looked at it."""

    def check_teacher(self, outputs: int, classes: Sequence[str], place: str) -> tuple[str, ...]:
        if list(classes) != list(self.data.classes):
            known, ours = (f"{len(names)} classes ({', '.join(names[:3])}, …)" for names in (classes, self.data.classes))
            raise ProfileError(f"the teacher in `{place}` knows {known}, and the data set has {ours}: they must be the same, in one order")
        return ()

    def forward(self, student: nn.Module, batch: Batch) -> Outputs:
        bare = self._bare(batch).tolist() if len(self.data.train.labels) else [None] * batch.count
        learnt = [_learnt(target, without) for target, without in zip(batch.targets, bare, strict=True)]
        if "weights" in learnt[0] and not getattr(student, "model", student).weighs:
            raise RunError("this detector does not learn from boxes that count differently, or from images without labels", hint=_WEIGHS)
        learnt = [{name: value.to(batch.images.device) for name, value in one.items()} for one in learnt]
        seeds = [0] * batch.count if batch.seeds is None else batch.seeds.tolist()
        outputs: Outputs = student(batch.images, learnt, seeds, **_sizes(batch, getattr(student, "model", student)))
        return outputs

    def _bare(self, batch: Batch) -> Tensor:
        """Which images have no labels, bool, (B,)."""
        return batch.labels < 0 if len(batch.labels) else torch.zeros(batch.count, dtype=torch.bool)

    def label_loss(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Those of torchvision: `classifier` and `box_reg` of the proposals, `objectness` and `rpn_box_reg` of the anchors. Where some
        images have no labels, they are divided by the share of those that have, as if these were all.
        """
        labelled = 1 - self.data.unlabelled_share
        return {name: value.float() / labelled if labelled < 1 else value.float() for name, value in outputs[_OUTPUT].losses.items()}

    def look(self, teacher: nn.Module, batch: Batch) -> Outputs:
        """The backbone and the pyramid; neither its proposal network nor its box head runs. Of a foreign detector what it finds."""
        if isinstance(bare := getattr(teacher, "model", teacher), ForeignDetector):
            return {_OUTPUT: _detect(bare, batch)}
        try:
            outputs: Outputs = teacher(batch.images, pyramid_only=True)
        except KeyError as error:
            raise RunError(f"the feature {error} of the teacher is none of its maps", hint=_LEVELS) from error
        return outputs

    def answer(self, teacher: nn.Module | None, look: Outputs, outputs: Outputs) -> Outputs:
        """The teacher's head at the places that the student learnt from."""
        assert teacher is not None
        model = teacher.model
        if isinstance(model, ForeignDetector):
            raise RunError("a teacher from an ONNX file gives boxes alone, and no logits of proposals", hint=_BOXES_ALONE)
        assert isinstance(model, Detector)
        return {**look, _OUTPUT: model.answer(look[_OUTPUT], outputs[_OUTPUT])}

    def guesses(self, teacher: nn.Module | None, look: Outputs, batch: Batch) -> Guesses:
        """The teacher's detections with their scores; boxes that are narrower than a pixel are none."""
        assert teacher is not None
        model: Any = teacher.model
        found = look[_OUTPUT] if isinstance(model, ForeignDetector) else model.detect(look[_OUTPUT], batch.images, **_sizes(batch, model))
        found = [_wide(one) for one in found]
        counts = torch.tensor([len(one["scores"]) for one in found])
        scores = torch.cat([one["scores"] for one in found])
        images = torch.arange(len(found)).repeat_interleave(counts)
        return Guesses(scores, images.to(scores.device), ~self._bare(batch).to(scores.device), found)

    def relabelled(self, batch: Batch, guesses: Guesses, relabels: Relabels) -> Batch:
        """Soft boxes: `weights` (N,) stand in the targets of all images, 1 for boxes of labels."""
        targets = []
        for number, (target, found, replaced) in enumerate(zip(batch.targets, guesses.content, relabels.images.tolist(), strict=True)):
            if not replaced:
                targets.append({**target, "weights": torch.ones_like(target["labels"], dtype=torch.float32)})
                continue
            weights = relabels.weights[guesses.images == number]
            kept = weights > 0
            boxes, labels = found["boxes"][kept].float(), found["labels"][kept] - 1
            own = {"boxes": boxes, "labels": labels, "crowd": torch.zeros_like(labels, dtype=torch.bool), "weights": weights[kept]}
            targets.append({**target, **own})
        return replace(batch, targets=targets)

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
        """The detections that `predict` gives, sorted by their score; None for the whole batch where an answer is not finite."""
        try:
            return [_answers(found, top) for found in _detections(model, batch)]
        except NotFiniteError:
            return [None] * batch.count

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
    if batch.images.ndim == 4:
        every = _detect(model, batch)
    else:  # the view and its mirror image
        plain, other = _detect(model, replace(batch, images=batch.images[:, 0])), _detect(model, _mirrored(batch))
        every = [_merged(*pair, batch.images.shape[-1]) for pair in zip(plain, other, strict=True)]
    return [
        {"boxes": _in_picture(found["boxes"].float(), target), "labels": found["labels"] - 1, "scores": found["scores"].float()}
        for found, target in zip(every, batch.targets, strict=True)
    ]


def _mirrored(batch: Batch) -> Batch:
    """The mirror images alone, and where pictures lie in them."""
    side = batch.images.shape[-1]
    over, far = torch.tensor([-1.0, 1.0]), torch.tensor([float(side), 0.0])
    targets = [{**one, "scale": one["scale"].cpu() * over, "offset": far + one["offset"].cpu() * over} for one in batch.targets]
    return replace(batch, images=batch.images[:, 1], targets=targets)


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


def _learnt(target: Mapping[str, Tensor], bare: bool | None) -> dict[str, Tensor]:
    """What an image's losses are computed from. bare: whether it has no labels, None where all have; unless a teacher gave it some, nothing
    is learnt from such an image.
    """
    kept = ~target["crowd"]
    own = {"boxes": target["boxes"][kept], "labels": target["labels"][kept] + 1}  # 0 is the background
    if "weights" in target:
        return {**own, "weights": target["weights"][kept], "background": torch.ones(())}
    if bare is None:
        return own
    return {**own, "weights": torch.ones(len(own["boxes"])), "background": torch.tensor(0.0 if bare else 1.0)}


def _wide(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The detections whose boxes have at least a pixel of width and height."""
    kept = (found["boxes"][:, 2:] - found["boxes"][:, :2] >= 1).all(1)
    return {name: value[kept] for name, value in found.items()}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _detect(model: nn.Module, batch: Batch) -> list[dict[str, Tensor]]:
    """Of each image `boxes` in pixels of the view, `labels` from 1, and `scores`. A foreign detector sees nothing but the picture.

    Raises:
        NotFiniteError: an answer is not finite.
    """
    if not isinstance(model, ForeignDetector):
        with finite_heads(model):
            found: list[dict[str, Tensor]] = model(batch.images, **_sizes(batch, model))
        return found
    parts = [_picture(target, view.shape[1:]) for target, view in zip(batch.targets, batch.images, strict=True)]
    foreign: list[dict[str, Tensor]] = model(batch.images, parts)
    return foreign


def _picture(target: Mapping[str, Any], sides: Sequence[int]) -> Tensor:
    """Where in a view of this height and width the picture lies: its left, top, right and bottom edge."""
    scale, offset, size = (target[name].cpu() for name in ("scale", "offset", "size"))
    corners = torch.stack([offset, size.flip(0) * scale + offset])
    edges = torch.cat([corners.min(0).values, corners.max(0).values]).clamp(min=0)
    return edges.minimum(torch.tensor([sides[1], sides[0]] * 2))


def _sizes(batch: Batch, model: Any) -> dict[str, list[tuple[int, int]]]:
    """What a detector is told of views that differ in size.

    Raises:
        RunError: it takes none.
    """
    if not batch.targets or "view" not in batch.targets[0]:
        return {}
    if not model.unequal:
        raise RunError(
            "this detector sees views that fill their image, and those of this data set differ in size", hint='`resize = "square"`'
        )
    return {"sizes": [(height, width) for height, width in torch.stack([target["view"] for target in batch.targets]).tolist()]}


def _in_picture(boxes: Tensor, target: Mapping[str, Any]) -> Tensor:
    """Boxes in pixels of the view → of the picture."""
    offset, scale = (target[name].to(boxes.device).repeat(2) for name in ("offset", "scale"))
    moved: Tensor = (boxes - offset) / scale
    return moved


__all__ = ["Detection"]
