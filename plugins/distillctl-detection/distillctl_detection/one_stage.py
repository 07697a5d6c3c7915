"""Detectors of one stage: torchvision's own RetinaNet, FCOS and SSDlite on square views, with their losses and anchors at hand.

The state dicts are torchvision's (see the README). What methods on logits see are the anchors that are matched with an object, and three
times as many of the background, those that the student takes most for an object: what SSD learns from (Liu et al. 2016, arXiv 1512.02325).
An image without objects gives three. RetinaNet (Lin et al. 2017, arXiv 1708.02002) and FCOS (Tian et al. 2019, arXiv 1904.01355; an anchor
for each position) have a sigmoid for each class, so that each place and class is an outcome of its own: over rows of zero and logit, `kd`
is the divergence of two Bernoulli distributions, the one that Yang et al. 2023 (arXiv 2308.14286) distil dense detectors by. They weigh all
positions instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection  # type: ignore[import-untyped]
from torchvision.models.detection._utils import retrieve_out_channels  # type: ignore[import-untyped]
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator  # type: ignore[import-untyped]
from torchvision.models.detection.fcos import FCOSHead  # type: ignore[import-untyped]
from torchvision.models.detection.image_list import ImageList  # type: ignore[import-untyped]
from torchvision.models.detection.retinanet import RetinaNetHead  # type: ignore[import-untyped]
from torchvision.models.detection.ssd import SSD  # type: ignore[import-untyped]
from torchvision.models.detection.ssdlite import SSDLiteHead, _mobilenet_extractor, _normal_init  # type: ignore[import-untyped]
from torchvision.models.mobilenetv3 import mobilenet_v3_large  # type: ignore[import-untyped]
from torchvision.ops import box_iou  # type: ignore[import-untyped]

from distillctl import LenientBatchNorm2d, fp32
from distillctl_detection.backbones import pyramid
from distillctl_detection.detector import Detector, Proposals, Pyramid, side_of_square
from distillctl_detection.options import FCOSOptions, RetinaNetOptions, SSDLiteOptions

_LEVELS = 5
_RATIOS = (0.5, 1.0, 2.0)
_NEGATIVES = 3
"""Places of the background for each that is matched with an object."""
_MATCHED = "matched"
_BACKGROUND = -1  # of `matched`; torchvision has -2 for what lies between two thresholds

Outputs = dict[str, Tensor]
Targets = Sequence[Mapping[str, Tensor]]


class OneStage(Detector):
    """What the three share: maps → answers at all anchors → losses and rows, or detections."""

    backbone: Any
    head: Any
    anchor_generator: Any
    compute_loss: Any
    postprocess_detections: Any
    proposal_matcher: Any

    def forward(self, images: Tensor, targets: Targets | None = None, seeds: Sequence[int] = (), *, pyramid_only: bool = False) -> Any:
        """As `Detector` says. Nothing is drawn, so that seeds have no effect."""
        side = side_of_square(images)
        levels: Pyramid = self.backbone(images)
        if pyramid_only:
            return levels
        maps = list(levels.values())
        outputs = {name: value.float() for name, value in self.head(maps).items()}
        with fp32(images.device):
            anchors = self.anchor_generator(ImageList(images, [(side, side)] * len(images)), [one.float() for one in maps])
            if targets is None:
                return self._detections(outputs, anchors, maps, [(side, side)] * len(images))
            losses, matched = self._losses([self._own(target) for target in targets], outputs, anchors, maps)
            logits = outputs["cls_logits"]
            places = [_learnt_from(self._objectness(one), its) for one, its in zip(logits, matched, strict=True)]
            labels = [_labels(target["labels"], its[at]) for target, its, at in zip(targets, matched, places, strict=True)]
            rows = torch.cat([one[at] for one, at in zip(logits, places, strict=True)])
            return Proposals(self._rows(rows), places, self._row_labels(torch.cat(labels), rows.shape[1]), losses, self.grid)

    def some_places(self, images: Tensor) -> list[Tensor]:
        """The first three anchors."""
        return [torch.arange(3, device=images.device)] * len(images)

    def classify(self, levels: Pyramid, boxes: Sequence[Tensor], side: int) -> Tensor:
        """Rows at the anchors of these numbers; boxes are not looked for."""
        logits: Tensor = self.head.classification_head(list(levels.values()))
        return self._rows(torch.cat([one[at] for one, at in zip(logits.float(), boxes, strict=True)]))

    def _own(self, target: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Targets as torchvision's class counts labels."""
        return target

    def _losses(self, targets: Targets, outputs: Outputs, anchors: list[Tensor], maps: list[Tensor]) -> tuple[Outputs, list[Tensor]]:
        """The losses of torchvision, and with which object each anchor of an image is matched."""
        raise NotImplementedError

    def _detections(self, outputs: Outputs, anchors: list[Tensor], maps: list[Tensor], sizes: list[tuple[int, int]]) -> list[Outputs]:
        raise NotImplementedError

    def _objectness(self, logits: Tensor) -> Tensor:
        """(A, C) → (A,), larger where an anchor is rather taken for an object."""
        raise NotImplementedError

    def _rows(self, logits: Tensor) -> Tensor:
        return logits

    def _row_labels(self, labels: Tensor, classes: int) -> Tensor:
        return labels


class _Sigmoids(OneStage):
    """A sigmoid for each class and no background. torchvision counts labels from 0 then."""

    first_stride = 8

    def _own(self, target: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {**target, "labels": target["labels"] - 1}

    def _objectness(self, logits: Tensor) -> Tensor:
        return logits.amax(1)

    def _rows(self, logits: Tensor) -> Tensor:
        flat = logits.flatten()
        return torch.stack([torch.zeros_like(flat), flat], 1)

    def _row_labels(self, labels: Tensor, classes: int) -> Tensor:
        own = torch.arange(1, classes + 1, device=labels.device)
        return (labels[:, None] == own).flatten().long()

    def _detections(self, outputs: Outputs, anchors: list[Tensor], maps: list[Tensor], sizes: list[tuple[int, int]]) -> list[Outputs]:
        cells = [one.shape[-2] * one.shape[-1] for one in maps]
        counts = [cell * (len(anchors[0]) // sum(cells)) for cell in cells]
        split = {name: list(value.split(counts, 1)) for name, value in outputs.items()}
        found = self.postprocess_detections(split, [list(one.split(counts)) for one in anchors], sizes)
        return [{**one, "labels": one["labels"] + 1} for one in found]


class _KeepsMatches:
    """A head that tells, beside its losses, with which object each anchor was matched: its owner finds that out and keeps it to itself."""

    def compute_loss(self, targets: Targets, head_outputs: Outputs, anchors: list[Tensor], matched_idxs: list[Tensor]) -> dict[str, Any]:
        losses = super().compute_loss(targets, head_outputs, anchors, matched_idxs)  # type: ignore[misc]
        return {**losses, _MATCHED: matched_idxs}


class _RetinaNetHead(_KeepsMatches, RetinaNetHead):  # type: ignore[misc]
    pass


class _FCOSHead(_KeepsMatches, FCOSHead):  # type: ignore[misc]
    pass


class RetinaNet(_Sigmoids, detection.RetinaNet):  # type: ignore[misc]
    """torchvision's RetinaNet on normalised square views, whose side is a multiple of 32: nothing is resized, padded or normalised."""

    def __init__(self, classes: int, options: RetinaNetOptions) -> None:
        backbone = pyramid(
            options.backbone, width=options.width, trained=options.trained_stages, frozen_norm=options.frozen_norm, one_stage=True
        )
        sides = [options.anchor_size * 2**level for level in range(_LEVELS)]
        sizes = tuple((side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))) for side in sides)
        anchors = AnchorGenerator(sizes, (_RATIOS,) * _LEVELS)
        super().__init__(
            backbone,
            classes,
            anchor_generator=anchors,
            head=_RetinaNetHead(options.width, anchors.num_anchors_per_location()[0], classes),
            score_thresh=options.score_threshold,
            detections_per_img=options.detections,
        )
        self.grid = ("retinanet", options.anchor_size)

    def _losses(self, targets: Targets, outputs: Outputs, anchors: list[Tensor], maps: list[Tensor]) -> tuple[Outputs, list[Tensor]]:
        losses = self.compute_loss(targets, outputs, anchors)
        return losses, losses.pop(_MATCHED)


class FCOS(_Sigmoids, detection.FCOS):  # type: ignore[misc]
    """torchvision's FCOS on normalised square views, whose side is a multiple of 32: nothing is resized, padded or normalised."""

    def __init__(self, classes: int, options: FCOSOptions) -> None:
        backbone = pyramid(
            options.backbone, width=options.width, trained=options.trained_stages, frozen_norm=options.frozen_norm, one_stage=True
        )
        super().__init__(
            backbone,
            classes,
            head=_FCOSHead(options.width, 1, classes),
            score_thresh=options.score_threshold,
            detections_per_img=options.detections,
        )
        self.grid = "fcos"

    def _losses(self, targets: Targets, outputs: Outputs, anchors: list[Tensor], maps: list[Tensor]) -> tuple[Outputs, list[Tensor]]:
        losses = self.compute_loss(targets, outputs, anchors, [one.shape[-2] * one.shape[-1] for one in maps])
        return losses, losses.pop(_MATCHED)


class SSDLite(OneStage, SSD):  # type: ignore[misc]
    """torchvision's SSDlite with a MobileNetV3-large on normalised square views, whose side is a multiple of 32: nothing is resized, padded
    or normalised. Published for 320 pixels.
    """

    first_stride = 16
    grid = "ssdlite"

    def __init__(self, classes: int, options: SSDLiteOptions) -> None:
        norm = partial(LenientBatchNorm2d, eps=0.001, momentum=0.03)  # of one image, the last maps have one value
        network = mobilenet_v3_large(weights=None, norm_layer=norm, reduced_tail=options.reduced_tail, width_mult=options.width_mult)
        _normal_init(network)
        backbone = _mobilenet_extractor(network, options.trained_stages, norm)
        anchors = DefaultBoxGenerator([[2, 3] for _ in range(6)], min_ratio=0.2, max_ratio=0.95)
        channels = retrieve_out_channels(backbone, (64, 64))
        super().__init__(
            backbone,
            anchors,
            (320, 320),
            1 + classes,
            head=SSDLiteHead(channels, anchors.num_anchors_per_location(), 1 + classes, norm),
            score_thresh=options.score_threshold,
            nms_thresh=0.55,
            detections_per_img=options.detections,
            topk_candidates=300,
        )

    def _losses(self, targets: Targets, outputs: Outputs, anchors: list[Tensor], maps: list[Tensor]) -> tuple[Outputs, list[Tensor]]:
        matched = [
            self.proposal_matcher(box_iou(target["boxes"], its))
            if len(target["boxes"])
            else torch.full((len(its),), _BACKGROUND, device=its.device)
            for target, its in zip(targets, anchors, strict=True)
        ]
        return self.compute_loss(targets, outputs, anchors, matched), matched

    def _detections(self, outputs: Outputs, anchors: list[Tensor], maps: list[Tensor], sizes: list[tuple[int, int]]) -> list[Outputs]:
        found: list[Outputs] = self.postprocess_detections(outputs, anchors, sizes)
        return found

    def _objectness(self, logits: Tensor) -> Tensor:
        return -logits.log_softmax(1)[:, 0]


def _learnt_from(objectness: Tensor, matched: Tensor) -> Tensor:
    """Numbers of the anchors that are matched with an object, and of the background where objectness is largest; both are (A,)."""
    objects, background = torch.where(matched > _BACKGROUND)[0], torch.where(matched == _BACKGROUND)[0]
    count = min(len(background), _NEGATIVES * max(len(objects), 1))
    return torch.cat([objects, background[objectness.detach()[background].topk(count).indices]])


def _labels(labels: Tensor, matched: Tensor) -> Tensor:
    """Of anchors, from 1; 0 for the background."""
    classes = torch.cat([labels.new_zeros(1), labels])
    return classes[(matched + 1).clamp(min=0)]


def build_retinanet(_name: str, num_classes: int, options: RetinaNetOptions) -> nn.Module:
    """A RetinaNet with fresh weights for so many classes."""
    return RetinaNet(num_classes, options)


def build_fcos(_name: str, num_classes: int, options: FCOSOptions) -> nn.Module:
    """An FCOS with fresh weights for so many classes."""
    return FCOS(num_classes, options)


def build_ssdlite(_name: str, num_classes: int, options: SSDLiteOptions) -> nn.Module:
    """An SSDlite with fresh weights for so many classes beside the background."""
    return SSDLite(num_classes, options)
