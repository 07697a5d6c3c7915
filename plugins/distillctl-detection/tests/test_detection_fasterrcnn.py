"""The detector is torchvision's: names, losses, detections."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from distillctl import RunError
from distillctl.models.features import Tapped
from distillctl_detection import plugin
from distillctl_detection.backbones import pyramid
from distillctl_detection.fasterrcnn import FasterRCNN, Proposals
from distillctl_detection.options import FasterRCNNOptions

SIDE = 64
TINY: dict[str, Any] = {"backbone": "mobilenet_v3_small", "width": 16, "head_width": 32, "anchor_size": 8.0, "proposals": 64}
ALL = 100_000
"""So many samples that nothing is drawn."""


def build(**options: Any) -> FasterRCNN:
    torch.manual_seed(0)
    return FasterRCNN(3, FasterRCNNOptions(**{**TINY, "anchor_samples": ALL, "box_samples": ALL, **options}))


def reference(ours: FasterRCNN) -> torchvision.models.detection.FasterRCNN:
    """Torchvision's own with the same weights, on images that it would resize to what they are."""
    backbone = pyramid("mobilenet_v3_small", width=16, trained=5, frozen_norm=False)
    backbone.fpn.extra_blocks = LastLevelMaxPool()
    model = torchvision.models.detection.FasterRCNN(
        backbone,
        min_size=SIDE,
        max_size=SIDE,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        rpn_anchor_generator=AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((0.5, 1.0, 2.0),) * 5),
        rpn_pre_nms_top_n_train=64,
        rpn_post_nms_top_n_train=64,
        rpn_pre_nms_top_n_test=32,
        rpn_post_nms_top_n_test=32,
        rpn_batch_size_per_image=ALL,
        box_batch_size_per_image=ALL,
        box_head=TwoMLPHead(16 * 49, 32),
        box_predictor=FastRCNNPredictor(32, 4),
        box_score_thresh=0.05,
    )
    model.load_state_dict(ours.state_dict())
    return model


def targets() -> list[dict[str, torch.Tensor]]:
    boxes = ([[4.0, 6.0, 30.0, 40.0], [32.0, 8.0, 60.0, 20.0]], [[0.0, 0.0, 64.0, 64.0]], [])
    labels = ([1, 3], [2], [])
    return [
        {"boxes": torch.tensor(box).reshape(-1, 4), "labels": torch.tensor(label, dtype=torch.int64)}
        for box, label in zip(boxes, labels, strict=True)
    ]


def images(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


def test_losses_are_those_of_torchvision() -> None:
    ours = build()
    theirs = reference(ours)
    found = ours(images(), targets(), [0, 1, 2])
    expected = theirs(list(images()), targets())
    assert {f"loss_{name}" for name in found.losses} == set(expected)
    for name, value in found.losses.items():
        torch.testing.assert_close(value, expected[f"loss_{name}"], rtol=1e-6, atol=1e-6)
    for one in (found.losses.values(), expected.values()):
        sum(one).backward()  # type: ignore[arg-type, union-attr]
    gradients = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name].grad, rtol=1e-4, atol=1e-6)


def test_detections_are_those_of_torchvision() -> None:
    ours = build().eval()
    found, expected = ours(images()), reference(ours).eval()(list(images()))
    assert sum(len(one["boxes"]) for one in found) > 10
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_rows_are_the_sampled_proposals_with_their_matched_labels() -> None:
    model = build(box_samples=16)
    found = model(images(), targets(), [0, 1, 2])
    assert isinstance(found, Proposals)
    assert found.labels is not None
    assert found.logits.shape == (48, 4)
    assert [boxes.shape for boxes in found.boxes] == [(16, 4)] * 3
    for number, (boxes, labels) in enumerate(zip(found.boxes, found.labels.split(16), strict=True)):
        truth = targets()[number]
        overlap = torchvision.ops.box_iou(boxes, truth["boxes"])
        for row, label in enumerate(labels.tolist()):
            best = overlap[row].max() if len(truth["boxes"]) else torch.tensor(0.0)
            assert label == (0 if best < 0.5 else int(truth["labels"][overlap[row].argmax()]))
    assert set(found.labels.tolist()) >= {0, 2}


def test_the_box_head_answers_to_any_boxes() -> None:
    """At its own sampled boxes it says what it said in training; batch normalisation is in the backbone alone."""
    model = build(box_samples=16)
    levels = model(images(), pyramid_only=True)
    assert list(levels) == ["0", "1", "2", "3", "pool"]
    found = model(images(), targets(), [0, 1, 2])
    torch.testing.assert_close(model.classify(levels, found.boxes, SIDE), found.logits)


def test_half_precision_moves_no_box() -> None:
    model = build(box_samples=16).eval()
    exact = model(images(), targets(), [0, 1, 2])
    with torch.autocast("cpu", torch.bfloat16):
        assert all(level.dtype == torch.bfloat16 for level in model(images(), pyramid_only=True).values())
        found = model(images(), targets(), [0, 1, 2])
        detections = model(images())
    assert found.logits.dtype == torch.float32
    fractions = torch.cat(list(found.boxes)).frac()
    assert (fractions != (fractions * 8).round() / 8).any(), "boxes are rounded to eighths"
    assert exact.logits.shape == found.logits.shape
    assert detections[0]["boxes"].dtype == torch.float32


@pytest.mark.parametrize("shape", [(48, 64), (64, 48)])
def test_views_that_torchvision_would_pad_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(RunError, match="views whose sides are multiples of 32 pixels, not"):
        build()(torch.zeros(1, 3, *shape))


def test_names_are_those_of_torchvisions_builder() -> None:
    with torch.device("meta"):
        ours = FasterRCNN(90, FasterRCNNOptions()).state_dict()
        theirs = torchvision.models.detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}


@pytest.mark.parametrize("trained", [0, 1, 3, 5])
def test_frozen_are_the_parts_that_torchvision_freezes(trained: int) -> None:
    with torch.device("meta"):
        ours = pyramid("resnet18", width=256, trained=trained, frozen_norm=True)
        theirs = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=trained)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    left = {name for name, value in theirs.named_parameters() if not value.requires_grad}
    assert {name for name, value in ours.named_parameters() if not value.requires_grad} == left


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"])
def test_stages_have_the_strides_of_their_numbers(name: str) -> None:
    model = build(backbone=name)
    tapped = Tapped(model, plugin.FASTERRCNN, ["stages", "c2", "c3", "c4", "c5"])
    assert tapped.names == ("p2", "p3", "p4", "p5", "p6", "c2", "c3", "c4", "c5")
    maps = tapped(images(2), pyramid_only=True)
    for stage in tapped.names:
        assert maps[stage].shape[-1] == SIDE // 2 ** int(stage[1]), stage
    assert all(maps[f"p{level}"].shape[1] == 16 for level in range(2, 7))
    torch.testing.assert_close(maps["p6"], maps["logits"]["pool"])
    for level in range(4):
        torch.testing.assert_close(maps[f"p{level + 2}"], maps["logits"][str(level)])
