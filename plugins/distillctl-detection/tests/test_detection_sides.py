"""Views of unequal sizes in a batch: what torchvision's own detector computes of them."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from distillctl import Batch, Splits
from distillctl.data import eval_loader, train_loader
from distillctl.data.decode import read_image
from distillctl.models.features import Tapped
from distillctl_coco.data import build as build_coco
from distillctl_coco.options import CocoOptions
from distillctl_detection import plugin
from distillctl_detection.backbones import pyramid
from distillctl_detection.fasterrcnn import FasterRCNN
from distillctl_detection.options import FasterRCNNOptions
from distillctl_detection.task import Detection

ALL = 100_000
SIZES = [(96, 120), (96, 150), (150, 96), (50, 160)]
"""Heights and widths that are what they are to become, so that nothing is resampled."""
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    root = tmp_path_factory.mktemp("sides")
    draw = torch.Generator().manual_seed(3)
    images, boxes = [], []
    for number, (height, width) in enumerate(SIZES):
        path = root / "images" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = torch.randint(0, 256, (height // 8, width // 8, 3), dtype=torch.uint8, generator=draw)
        Image.fromarray(pixels.numpy()).resize((width, height)).save(path)
        images.append({"id": number, "file_name": path.name, "width": width, "height": height})
        for label in range(number):
            left, top = 5 + 12 * label, 4 + 7 * label
            boxes.append({"image_id": number, "category_id": 1 + label % 2, "bbox": [left, top, 30, 20 + 3 * label]})
    listed = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}
    (root / "instances_train.json").write_text(json.dumps(listed))
    options: dict[str, Any] = {"resize": "sides", "short_sides": [96], "long_side": 160, "augment": "none", "aspect_batches": False}
    return build_coco(CocoOptions(root=root, val="", test="", **options), 0)


def build() -> FasterRCNN:
    torch.manual_seed(0)
    tiny: dict[str, Any] = {"backbone": "mobilenet_v3_small", "width": 8, "head_width": 16, "anchor_size": 8.0, "proposals": 64}
    return FasterRCNN(2, FasterRCNNOptions(**tiny, anchor_samples=ALL, box_samples=ALL, score_threshold=0.2))


def reference(ours: FasterRCNN) -> torchvision.models.detection.FasterRCNN:
    backbone = pyramid("mobilenet_v3_small", width=8, trained=5, frozen_norm=False)
    backbone.fpn.extra_blocks = LastLevelMaxPool()
    model = torchvision.models.detection.FasterRCNN(
        backbone,
        min_size=(96,),
        max_size=160,
        image_mean=MEAN,
        image_std=STD,
        rpn_anchor_generator=AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((0.5, 1.0, 2.0),) * 5),
        rpn_pre_nms_top_n_train=64,
        rpn_post_nms_top_n_train=64,
        rpn_pre_nms_top_n_test=32,
        rpn_post_nms_top_n_test=32,
        rpn_batch_size_per_image=ALL,
        box_batch_size_per_image=ALL,
        box_head=TwoMLPHead(8 * 49, 16),
        box_predictor=FastRCNNPredictor(16, 3),
        box_score_thresh=0.2,
    )
    model.load_state_dict(ours.state_dict())
    return model


def pictures(splits: Splits, batch: Batch) -> list[torch.Tensor]:
    assert hasattr(splits.train, "paths")
    return [read_image(splits.train.paths[index]) / 255 for index in batch.index.tolist()]


def test_losses_are_those_of_torchvision(splits: Splits) -> None:
    """With its own resizing, normalisation and padding of the same files."""
    with closing(train_loader(splits, batch_size=4, seed=0, device=torch.device("cpu"), workers=0)) as loader:
        (batch,) = loader.epoch(0)
    assert tuple(batch.images.shape) == (4, 3, 160, 160)
    ours = build()
    task = Detection(splits)
    outputs = task.forward(Tapped(ours, plugin.FASTERRCNN, []), replace(batch, seeds=batch.index))
    losses = task.label_loss(outputs, batch)
    targets = splits.train.targets.subset(batch.index)
    expected = reference(ours)(pictures(splits, batch), [{"boxes": one["boxes"], "labels": one["labels"] + 1} for one in targets])
    assert {f"loss_{name}" for name in losses} == set(expected)
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[f"loss_{name}"], rtol=1e-5, atol=1e-5)


def test_detections_are_those_of_torchvision_in_the_picture(splits: Splits) -> None:
    ours = build().eval()
    with closing(eval_loader(splits, splits.train, batch_size=2, device=torch.device("cpu"), workers=0)) as loader:
        batches = list(loader)
    assert [tuple(batch.images.shape[2:]) for batch in batches] == [(96, 160), (160, 160)]
    for batch in batches:
        found = Detection(splits).predict(ours, batch)
        expected = reference(ours).eval()(pictures(splits, batch))
        for one, other, (height, width) in zip(found, expected, (SIZES[i] for i in batch.index.tolist()), strict=True):
            assert len(one["boxes"]) > 3
            torch.testing.assert_close(one["boxes"], other["boxes"], rtol=1e-5, atol=1e-3)
            torch.testing.assert_close(one["scores"], other["scores"], rtol=1e-5, atol=1e-5)
            assert torch.equal(one["labels"] + 1, other["labels"])
            assert bool((one["boxes"] <= torch.tensor([width, height] * 2) + 1e-3).all())
