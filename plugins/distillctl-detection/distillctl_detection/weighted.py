"""Losses of Faster R-CNN where boxes count differently: soft boxes of a teacher, and images without labels.

The weight of a box multiplies what the anchors and the proposals that are matched with it contribute: their classification and their
regression. What is matched with none has the weight of its image's background. Sums are divided by the number of samples, as
torchvision's are, and not by weights. With weights of 1 they are torchvision's losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.image_list import ImageList  # type: ignore[import-untyped]
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers  # type: ignore[import-untyped]

_BETA = 1 / 9

Target = Mapping[str, Tensor]
"""`boxes`, `labels`, `weights` (n,) and `background` (0-dim)."""


def rpn_losses(
    rpn: RegionProposalNetwork, images: ImageList, levels: Mapping[str, Tensor], targets: Sequence[Target]
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The forward of a proposal network in training: proposals of each image, and its two losses."""
    maps = list(levels.values())
    scores, deltas = rpn.head(maps)
    anchors = rpn.anchor_generator(images, maps)
    counts = [score[0].numel() for score in scores]
    scores, deltas = concat_box_prediction_layers(scores, deltas)
    proposals = rpn.box_coder.decode(deltas.detach(), anchors).view(len(anchors), -1, 4)
    boxes, _ = rpn.filter_proposals(proposals, scores, images.image_sizes, counts)

    labels, matched = rpn.assign_targets_to_anchors(anchors, targets)
    wanted = torch.cat(rpn.box_coder.encode(matched, anchors))
    weights = torch.cat([_of_anchors(rpn, own, target) for own, target in zip(anchors, targets, strict=True)])
    objects, background = (torch.where(torch.cat(masks))[0] for masks in rpn.fg_bg_sampler(labels))
    sampled = torch.cat([objects, background])
    each = F.binary_cross_entropy_with_logits(scores.flatten()[sampled], torch.cat(labels)[sampled].to(scores), reduction="none")
    return boxes, {
        "loss_objectness": (weights[sampled] * each).sum() / len(sampled),
        "loss_rpn_box_reg": _regression(deltas[objects], wanted[objects], weights[objects]) / len(sampled),
    }


def box_losses(
    logits: Tensor, deltas: Tensor, labels: Sequence[Tensor], wanted: Sequence[Tensor], matched: Sequence[Tensor], targets: Sequence[Target]
) -> tuple[Tensor, Tensor]:
    """Those of a box head: classification and regression.

    logits (R, 1 + K), deltas (R, 4 (1 + K)). Of each image `labels` (R_i,), 0 for the background, `wanted` (R_i, 4), and `matched` (R_i,),
    the box of its target for rows that are not background.
    """
    weights = torch.cat([_of_matches(index, label > 0, target) for index, label, target in zip(matched, labels, targets, strict=True)])
    every, boxes = torch.cat(list(labels)), torch.cat(list(wanted))
    objects = torch.where(every > 0)[0]
    own = deltas.reshape(len(every), -1, 4)[objects, every[objects]]
    classification = (weights * F.cross_entropy(logits, every, reduction="none")).sum() / len(every)
    return classification, _regression(own, boxes[objects], weights[objects]) / len(every)


def _of_anchors(rpn: RegionProposalNetwork, anchors: Tensor, target: Target) -> Tensor:
    if not len(target["boxes"]):
        return target["background"].expand(len(anchors))
    index = rpn.proposal_matcher(rpn.box_similarity(target["boxes"], anchors))
    return _of_matches(index.clamp(min=0), index >= 0, target)


def _of_matches(index: Tensor, objects: Tensor, target: Target) -> Tensor:
    if not len(target["weights"]):
        return target["background"].expand(len(index))
    return torch.where(objects, target["weights"][index], target["background"])


def _regression(found: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    return (weights[:, None] * F.smooth_l1_loss(found, wanted, beta=_BETA, reduction="none")).sum()


__all__ = ["box_losses", "rpn_losses"]
