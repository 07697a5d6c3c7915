"""Faster R-CNN with a feature pyramid: torchvision's own, with its losses, sampled proposals and pyramid at hand.

The state dict is torchvision's, so that a deployed student loads with torchvision alone (see the README). Ren, He, Girshick, Sun 2015,
arXiv 1506.01497; Lin et al. 2017, arXiv 1612.03144.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN  # type: ignore[import-untyped]
from torchvision.models.detection.anchor_utils import AnchorGenerator  # type: ignore[import-untyped]
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead  # type: ignore[import-untyped]
from torchvision.models.detection.image_list import ImageList  # type: ignore[import-untyped]
from torchvision.models.detection.roi_heads import fastrcnn_loss  # type: ignore[import-untyped]
from torchvision.ops.poolers import initLevelMapper  # type: ignore[import-untyped]

from distillctl import RunError, fp32
from distillctl_detection.backbones import pyramid
from distillctl_detection.options import FasterRCNNOptions
from distillctl_detection.sampling import SeededSampler

STRIDE = 32
"""Batches have heights and widths that are multiples of this; torchvision would pad others."""
_RATIOS = (0.5, 1.0, 2.0)
_LEVELS = 5
_RESOLUTION = 7

Pyramid = Mapping[str, Tensor]


class Proposals(NamedTuple):
    """What a detector says of proposals, R in all images.

    logits: (R, 1 + K), of the background and of K classes.
    boxes: of each image, (R_i, 4).
    labels: int64, (R,), 0 for the background; None without targets.
    losses: 0-dim, by torchvision's names without `loss_`; empty without targets.
    """

    logits: Tensor
    boxes: Sequence[Tensor]
    labels: Tensor | None = None
    losses: Mapping[str, Tensor] = MappingProxyType({})


class FasterRCNN(TorchvisionFasterRCNN):  # type: ignore[misc]
    """torchvision's Faster R-CNN on normalised views, padded to a multiple of 32: nothing is resized, padded or normalised here."""

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
        """Images (B, 3, H, W) → in evaluation a dict of `boxes` (M, 4), `labels` (1 … K) and `scores` for each image; with targets, whose
        `boxes` are in pixels and whose `labels` are 1 … K, the sampled `Proposals` with their losses.

        seeds: of each image, for what is sampled of its anchors and proposals.
        sizes: height and width of each view, which lies in the upper left of its image, and to which proposals and detections are cut; None
            where it fills it.
        pyramid_only: only the backbone and the pyramid run, and the levels are returned.

        Raises:
            RunError: the views are of a size that torchvision would pad.
        """
        height, width = images.shape[-2:]
        if height % STRIDE or width % STRIDE:
            raise RunError(f"a detector sees views whose sides are multiples of {STRIDE} pixels, not {height}×{width}")
        levels: Pyramid = self.backbone(images)
        if pyramid_only:
            return levels
        with fp32(images.device):  # in 8 bits of mantissa a box would be off by pixels
            levels = {name: level.float() for name, level in levels.items()}
            listed = ImageList(images, [(height, width)] * len(images) if sizes is None else list(sizes))
            if targets is None:
                proposals, _ = self.rpn(listed, levels)
                return self.roi_heads(levels, proposals, listed.image_sizes)[0]
            self.rpn.fg_bg_sampler.seeds = self.roi_heads.fg_bg_sampler.seeds = seeds
            proposals, losses = self.rpn(listed, levels, targets)
            boxes, _, labels, regression = self.roi_heads.select_training_samples(proposals, targets)
            logits, deltas = self._box_head(levels, boxes, height)
            losses["loss_classifier"], losses["loss_box_reg"] = fastrcnn_loss(logits, deltas, labels, regression)
        terms = {name.removeprefix("loss_"): value for name, value in losses.items()}
        return Proposals(logits, boxes, torch.cat(labels), terms)

    def classify(self, levels: Pyramid, boxes: Sequence[Tensor], side: int) -> Tensor:
        """Logits (R, 1 + K) of boxes of each image, from the levels of its pyramid and the height of the batch in pixels."""
        with fp32(boxes[0].device):
            return self._box_head({name: level.float() for name, level in levels.items()}, boxes, side)[0]

    def _box_head(self, levels: Pyramid, boxes: Sequence[Tensor], side: int) -> tuple[Tensor, Tensor]:
        pooled = self.roi_heads.box_roi_pool(levels, list(boxes), [(side, side)] * len(boxes))
        logits, deltas = self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))
        return logits, deltas


def build(_name: str, num_classes: int, options: FasterRCNNOptions) -> nn.Module:
    """A Faster R-CNN with fresh weights for so many classes beside the background."""
    return FasterRCNN(num_classes, options)
