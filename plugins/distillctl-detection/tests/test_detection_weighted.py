"""Losses of boxes that count differently: torchvision's where all count once, loops where they do not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from distillctl_detection.fasterrcnn import FasterRCNN, Proposals
from distillctl_detection.options import FasterRCNNOptions
from distillctl_detection.weighted import box_losses, rpn_losses

SIDE = 64
TERMS = ("objectness", "rpn_box_reg", "classifier", "box_reg")
SEEDS = [0, 1, 2]


def build() -> FasterRCNN:
    torch.manual_seed(0)
    options: dict[str, Any] = {"backbone": "mobilenet_v3_small", "width": 16, "head_width": 32, "anchor_size": 8.0, "proposals": 64}
    return FasterRCNN(3, FasterRCNNOptions(**options, anchor_samples=64, box_samples=24))


def images() -> Tensor:
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


def targets(*weights: list[float], background: tuple[float, ...] = (1.0, 1.0, 1.0)) -> list[dict[str, Tensor]]:
    boxes = ([[4.0, 6.0, 30.0, 40.0], [32.0, 8.0, 60.0, 20.0]], [[0.0, 0.0, 64.0, 64.0]], [])
    labels = ([1, 3], [2], [])
    found = [
        {"boxes": torch.tensor(box).reshape(-1, 4), "labels": torch.tensor(label, dtype=torch.int64)}
        for box, label in zip(boxes, labels, strict=True)
    ]
    for one, weight, rest in zip(found, weights, background, strict=False):
        one |= {"weights": torch.tensor(weight), "background": torch.tensor(rest)}
    return found


ONES = targets([1.0, 1.0], [1.0], [])


def test_with_weights_of_1_they_are_those_of_torchvision() -> None:
    plain, weighted = build(), build()
    expected, found = plain(images(), targets(), SEEDS), weighted(images(), ONES, SEEDS)
    assert isinstance(found, Proposals)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=0)
    assert tuple(found.losses) == TERMS
    for name in TERMS:
        torch.testing.assert_close(found.losses[name], expected.losses[name], rtol=1e-6, atol=1e-6)
    sum(expected.losses.values()).backward()  # type: ignore[union-attr]
    sum(found.losses.values()).backward()  # type: ignore[union-attr]
    gradients = dict(plain.named_parameters())
    for name, parameter in weighted.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name].grad, rtol=1e-4, atol=1e-6)


def smooth(difference: float) -> float:
    beta = 1 / 9
    return difference * difference / (2 * beta) if abs(difference) < beta else abs(difference) - beta / 2


def encoded(box: list[float], anchor: list[float], weights: tuple[float, float, float, float]) -> list[float]:
    """What the regression shall give: shift of the centre and logarithm of the size, in units of the anchor."""
    (w, h), (aw, ah) = ((one[2] - one[0], one[3] - one[1]) for one in (box, anchor))
    x = (box[0] + w / 2 - anchor[0] - aw / 2) / aw
    y = (box[1] + h / 2 - anchor[1] - ah / 2) / ah
    return [weights[0] * x, weights[1] * y, weights[2] * math.log(w / aw), weights[3] * math.log(h / ah)]


SOFT = targets([0.75, 0.25], [0.375], [], background=(1.0, 0.5, 0.0))


def test_the_proposal_networks_losses_are_those_of_loops() -> None:
    model = build().double()
    rpn = model.rpn
    soft = [{name: value.double() if value.is_floating_point() else value for name, value in one.items()} for one in SOFT]
    listed = ImageList(images().double(), [(SIDE, SIDE)] * 3)
    levels = model.backbone(listed.tensors)
    rpn.fg_bg_sampler.seeds = SEEDS
    _, losses = rpn_losses(rpn, listed, levels, soft)

    maps = list(levels.values())
    scores, deltas = rpn.head(maps)
    logits = [[z for score in scores for z in score[n].permute(1, 2, 0).flatten().tolist()] for n in range(3)]
    shifts = [
        [row for delta in deltas for row in delta[n].reshape(3, 4, *delta.shape[-2:]).permute(2, 3, 0, 1).reshape(-1, 4).tolist()]
        for n in range(3)
    ]
    anchors = rpn.anchor_generator(listed, maps)
    labels, _ = rpn.assign_targets_to_anchors(anchors, soft)
    rpn.fg_bg_sampler.seeds = SEEDS
    objects, background = rpn.fg_bg_sampler(labels)
    classification = regression = count = 0.0
    for n in range(3):
        overlap = box_iou(soft[n]["boxes"], anchors[n]) if len(soft[n]["boxes"]) else None
        for row in range(len(anchors[n])):
            z = logits[n][row]
            if objects[n][row]:
                assert overlap is not None
                best = int(overlap[:, row].argmax())
                weight = float(soft[n]["weights"][best])
                classification += weight * math.log1p(math.exp(-z))
                wanted = encoded(soft[n]["boxes"][best].tolist(), anchors[n][row].tolist(), (1, 1, 1, 1))
                regression += weight * sum(smooth(a - b) for a, b in zip(shifts[n][row], wanted, strict=True))
            elif background[n][row]:
                classification += float(soft[n]["background"]) * math.log1p(math.exp(z))
            count += bool(objects[n][row]) + bool(background[n][row])
    assert losses["loss_objectness"].item() == pytest.approx(classification / count, rel=1e-9)
    assert losses["loss_rpn_box_reg"].item() == pytest.approx(regression / count, rel=1e-6)
    assert regression > 0


def test_the_box_heads_losses_are_those_of_loops_with_gradients() -> None:
    draw = torch.Generator().manual_seed(2)
    logits = torch.randn(6, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    deltas = torch.randn(6, 16, generator=draw, dtype=torch.float64, requires_grad=True)
    wanted = list(torch.randn(6, 4, generator=draw, dtype=torch.float64).split([3, 2, 1]))
    labels = [torch.tensor([3, 0, 1]), torch.tensor([2, 0]), torch.tensor([0])]
    matched = [torch.tensor([1, 0, 0]), torch.tensor([0, 0]), torch.tensor([0])]
    soft = [{name: value.double() if value.is_floating_point() else value for name, value in one.items()} for one in SOFT]
    weights = [0.25, 1.0, 0.75, 0.375, 0.5, 0.0]
    classification, regression = box_losses(logits, deltas, labels, wanted, matched, soft)
    first = second = 0.0
    for row, label in enumerate(torch.cat(labels).tolist()):
        z = logits[row].tolist()
        first += weights[row] * (math.log(sum(map(math.exp, z))) - z[label])
        if label:
            own = deltas[row, 4 * label : 4 * label + 4].tolist()
            second += weights[row] * sum(smooth(a - b) for a, b in zip(own, torch.cat(wanted)[row].tolist(), strict=True))
    assert classification.item() == pytest.approx(first / 6, rel=1e-12)
    assert regression.item() == pytest.approx(second / 6, rel=1e-12)
    assert torch.autograd.gradcheck(lambda z, d: box_losses(z, d, labels, wanted, matched, soft), (logits, deltas))


def test_an_image_of_weight_0_teaches_nothing() -> None:
    gradients = []
    for pictures in (images(), torch.cat([images()[:2], images()[:1]])):
        model = build().eval()  # batch normalisation would mix the images
        model.rpn.train()
        model.roi_heads.train()
        losses = model(pictures, targets([0.7, 0.25], [0.4], [], background=(1.0, 1.0, 0.0)), SEEDS).losses
        sum(losses.values()).backward()  # type: ignore[union-attr]
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-7)
