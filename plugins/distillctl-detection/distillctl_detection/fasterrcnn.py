"""Faster R-CNN with a feature pyramid: torchvision's own, with its losses, sampled proposals and pyramid at hand.

The state dict is torchvision's, so that a deployed student loads with torchvision alone (see the README). Ren, He, Girshick, Sun 2015,
arXiv 1506.01497; Lin et al. 2017, arXiv 1612.03144.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN  # type: ignore[import-untyped]
from torchvision.models.detection.anchor_utils import AnchorGenerator  # type: ignore[import-untyped]
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead  # type: ignore[import-untyped]
from torchvision.models.detection.image_list import ImageList  # type: ignore[import-untyped]
from torchvision.models.detection.roi_heads import fastrcnn_loss  # type: ignore[import-untyped]
from torchvision.ops.poolers import initLevelMapper  # type: ignore[import-untyped]

from distillctl import fp32
from distillctl_detection.backbones import pyramid
from distillctl_detection.detector import Detector, Proposals, Pyramid, sides_of, terms_of
from distillctl_detection.options import FasterRCNNOptions
from distillctl_detection.sampling import SeededSampler
from distillctl_detection.weighted import box_losses, rpn_losses

_RATIOS = (0.5, 1.0, 2.0)
_LEVELS = 5
_RESOLUTION = 7
_SOME = (0.0, 0.25, 0.5)
"""Left and upper edges of the boxes of a sample, of the view's side."""


class FasterRCNN(Detector, TorchvisionFasterRCNN):  # type: ignore[misc]
    """torchvision's Faster R-CNN on normalised views, padded to a multiple of 32: nothing is resized, padded or normalised here."""

    first_stride = 4
    weighs = True
    unequal = True
    heads = ("rpn.head", "roi_heads.box_predictor")
    backbone: Any
    rpn: Any
    roi_heads: Any

    def __init__(self, classes: int, options: FasterRCNNOptions) -> None:
        backbone = pyramid(options.backbone, width=options.width, trained=options.trained_stages, frozen_norm=options.frozen_norm)
        sizes = [options.anchor_size * 2**level for level in range(_LEVELS)]
        super().__init__(
            backbone,
            rpn_anchor_generator=AnchorGenerator(tuple((size,) for size in sizes), (_RATIOS,) * _LEVELS),
            rpn_pre_nms_top_n_train=options.proposals,
            rpn_pre_nms_top_n_test=max(options.proposals // 2, 1),
            rpn_post_nms_top_n_train=options.proposals,
            rpn_post_nms_top_n_test=max(options.proposals // 2, 1),
            box_head=TwoMLPHead(options.width * _RESOLUTION**2, options.head_width),
            box_predictor=FastRCNNPredictor(options.head_width, 1 + classes),
            box_score_thresh=options.score_threshold,
            box_detections_per_img=options.detections,
        )
        pool = self.roi_heads.box_roi_pool  # it would infer them from the first views, and wrongly from small ones in a larger batch
        pool.scales = [2.0**-level for level in range(2, 2 + len(pool.featmap_names))]
        pool.map_levels = initLevelMapper(2, 1 + len(pool.featmap_names), pool.canonical_scale, pool.canonical_level)
        self.rpn.fg_bg_sampler = SeededSampler(options.anchor_samples, 0.5, stream=0)
        self.roi_heads.fg_bg_sampler = SeededSampler(options.box_samples, 0.25, stream=1)

    def forward(
        self,
        images: Tensor,
        targets: Sequence[Mapping[str, Tensor]] | None = None,
        seeds: Sequence[int] = (),
        *,
        sizes: Sequence[tuple[int, int]] | None = None,
        pyramid_only: bool = False,
    ) -> Any:
        """As `Detector` says. seeds: of each image, for what is sampled of its anchors and proposals.

        sizes: height and width of each view, which lies in the upper left of its image, and to which proposals and detections are cut; None
            where it fills it.
        """
        height, _ = sides_of(images)
        levels: Pyramid = self.backbone(images)
        if pyramid_only:
            return levels
        with fp32(images.device):  # in 8 bits of mantissa a box would be off by pixels
            levels = {name: level.float() for name, level in levels.items()}
            listed = ImageList(images, _sizes(images, sizes))
            if targets is None:
                return self.detect(levels, images, sizes)
            self.rpn.fg_bg_sampler.seeds = self.roi_heads.fg_bg_sampler.seeds = seeds
            weighted = "weights" in targets[0]
            proposals, losses = (partial(rpn_losses, self.rpn) if weighted else self.rpn)(listed, levels, targets)
            boxes, matched, labels, regression = self.roi_heads.select_training_samples(proposals, targets)
            logits, deltas = self._box_head(levels, boxes, height)
            if weighted:
                losses["loss_classifier"], losses["loss_box_reg"] = box_losses(logits, deltas, labels, regression, matched, targets)
            else:
                losses["loss_classifier"], losses["loss_box_reg"] = fastrcnn_loss(logits, deltas, labels, regression)
        return Proposals(logits, boxes, torch.cat(labels), terms_of(losses))

    def some_places(self, images: Tensor) -> list[Tensor]:
        """Three boxes half as wide as the view's shorter side."""
        shorter = min(images.shape[-2:])
        edges = torch.tensor(_SOME, device=images.device)[:, None] * shorter
        return [torch.cat([edges, edges, edges + shorter / 2, edges + shorter / 2], 1)] * len(images)

    def detect(self, levels: Pyramid, images: Tensor, sizes: Sequence[tuple[int, int]] | None = None) -> list[dict[str, Tensor]]:
        """What it finds, in evaluation mode, by the levels of its pyramid, as `forward` gives it."""
        with fp32(images.device):
            levels = {name: level.float() for name, level in levels.items()}
            listed = ImageList(images, _sizes(images, sizes))
            found: list[dict[str, Tensor]] = self.roi_heads(levels, self.rpn(listed, levels)[0], listed.image_sizes)[0]
            return found

    def classify(self, levels: Pyramid, boxes: Sequence[Tensor], side: int) -> Tensor:
        """Logits (R, 1 + K) of boxes of each image, from the levels of its pyramid and the height of the batch in pixels."""
        with fp32(boxes[0].device):
            return self._box_head({name: level.float() for name, level in levels.items()}, boxes, side)[0]

    def _box_head(self, levels: Pyramid, boxes: Sequence[Tensor], side: int) -> tuple[Tensor, Tensor]:
        pooled = self.roi_heads.box_roi_pool(levels, list(boxes), [(side, side)] * len(boxes))
        logits, deltas = self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))
        return logits, deltas


def _sizes(images: Tensor, sizes: Sequence[tuple[int, int]] | None) -> list[tuple[int, int]]:
    height, width = images.shape[-2:]
    return [(height, width)] * len(images) if sizes is None else list(sizes)


def build(_name: str, num_classes: int, options: FasterRCNNOptions) -> nn.Module:
    """A Faster R-CNN with fresh weights for so many classes beside the background."""
    return FasterRCNN(num_classes, options)
