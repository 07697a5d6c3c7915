"""Pretrained weights arrive where they belong; nothing is downloaded."""

from __future__ import annotations

import pytest
import torch
import torchvision

from distillctl import ProfileError
from distillctl_detection import weights
from distillctl_detection.fasterrcnn import FasterRCNN
from distillctl_detection.options import FasterRCNNOptions


@pytest.mark.parametrize(("name", "layer"), [("resnet18", "layer3.0.conv1.weight"), ("mobilenet_v3_small", "4.block.0.0.weight")])
def test_a_classification_network_becomes_the_backbone(name: str, layer: str) -> None:
    options = FasterRCNNOptions(backbone=name, width=8, head_width=8, frozen_norm=True)  # type: ignore[arg-type]
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None)
    state = weights.with_backbone(network.state_dict(), options)
    own = network.state_dict()
    assert torch.equal(state[f"backbone.body.{layer}"], own[layer if layer in own else f"features.{layer}"])
    model = FasterRCNN(5, options)
    rest = {key: value for key, value in state.items() if not key.startswith("roi_heads.box_predictor")}
    assert not model.load_state_dict(rest, strict=False).unexpected_keys
    images = torch.randn(1, 3, 64, 64)
    body = network.eval() if name == "resnet18" else network.eval().features
    value = images
    for child, module in body.named_children():
        value = module(value)
        if child == "layer4":
            break
    deepest = model.eval().backbone.body(images)["3"]
    torch.testing.assert_close(deepest, value, rtol=1e-3, atol=1e-3)


def test_gaps_between_ids_are_closed_and_the_norm_adds_no_epsilon() -> None:
    state = {
        "roi_heads.box_predictor.cls_score.weight": torch.arange(8.0).reshape(4, 2),
        "roi_heads.box_predictor.cls_score.bias": torch.arange(4.0),
        "roi_heads.box_predictor.bbox_pred.weight": torch.arange(32.0).reshape(16, 2),
        "roi_heads.box_predictor.bbox_pred.bias": torch.arange(16.0),
        "backbone.body.bn1.running_var": torch.tensor([1e-4, 1.0]),
    }
    found = weights.of_classes(state, ["__background__", "one", "N/A", "three"])
    assert found["roi_heads.box_predictor.cls_score.bias"].tolist() == [0, 1, 3]
    assert found["roi_heads.box_predictor.cls_score.weight"].tolist() == [[0, 1], [2, 3], [6, 7]]
    assert found["roi_heads.box_predictor.bbox_pred.bias"].tolist() == [*range(8), *range(12, 16)]
    assert found["roi_heads.box_predictor.bbox_pred.weight"].shape == (12, 2)
    norm = torchvision.ops.FrozenBatchNorm2d(2)
    norm.running_var.copy_(found["backbone.body.bn1.running_var"])
    images = torch.randn(1, 2, 3, 3)
    expected = images / torch.tensor([1e-4, 1.0]).sqrt()[:, None, None]
    torch.testing.assert_close(norm(images), expected)


def test_coco_weights_fit_one_detector() -> None:
    with pytest.raises(ProfileError, match="`coco` are of a detector with `backbone = resnet50`"):
        weights.load("fasterrcnn", "coco", FasterRCNNOptions(backbone="resnet18", frozen_norm=True))
    with pytest.raises(ProfileError, match="with `frozen_norm = true`"):
        weights.load("fasterrcnn", "coco", FasterRCNNOptions())
