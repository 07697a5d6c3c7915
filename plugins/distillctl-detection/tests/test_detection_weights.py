"""Pretrained weights arrive where they belong; nothing is downloaded."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from distillctl import DataError, ProfileError
from distillctl.build.models import build_student
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl_detection import weights
from distillctl_detection.fasterrcnn import FasterRCNN
from distillctl_detection.one_stage import FCOS, RetinaNet, SSDLite
from distillctl_detection.options import FasterRCNNOptions, FCOSOptions, RetinaNetOptions, ShapesOptions, SSDLiteOptions
from distillctl_detection.shapes import build as build_shapes
from distillctl_detection.task import Detection


@pytest.mark.parametrize(("name", "layer"), [("resnet18", "layer3.0.conv1.weight"), ("mobilenet_v3_small", "4.block.0.0.weight")])
def test_a_classification_network_becomes_the_backbone(name: str, layer: str) -> None:
    options = FasterRCNNOptions(backbone=name, width=8, head_width=8, frozen_norm=True)  # type: ignore[arg-type]
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None)
    state = weights.with_backbone(network.state_dict(), FasterRCNN(1, options))
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
    found = weights.of_classes("fasterrcnn", state, ["__background__", "one", "N/A", "three"])
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
    with pytest.raises(ProfileError, match=r"with `anchor_size = 32\.0`"):
        weights.load("retinanet", "coco", RetinaNetOptions(frozen_norm=True, anchor_size=8.0))
    with pytest.raises(ProfileError, match=r"with `width_mult = 1\.0`"):
        weights.load("ssdlite", "coco", SSDLiteOptions(width_mult=0.5))
    with pytest.raises(ProfileError, match="with `reduced_tail = false`"):
        weights.load("ssdlite", "imagenet", SSDLiteOptions())


def test_weights_of_coco_of_detectors_of_one_stage_say_the_same_of_the_classes_that_there_are() -> None:
    """Of torchvision's own detectors with four categories, one of which is a gap; RetinaNet's file has the names of its first version."""
    categories = ["__background__", "one", "N/A", "three"]
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tiny: dict[str, Any] = {"backbone": "mobilenet_v3_small", "frozen_norm": True}
    models = {
        "retinanet": (RetinaNet, RetinaNetOptions(**tiny, width=8), 4, 2, [1, 3]),
        "fcos": (FCOS, FCOSOptions(**tiny, width=64), 4, 2, [1, 3]),
        "ssdlite": (SSDLite, SSDLiteOptions(width_mult=0.25), 3, 2, [0, 1, 3]),
    }
    for name, (model, options, theirs, ours, kept) in models.items():
        torch.manual_seed(0)
        published = model(theirs, options).eval()
        state = published.state_dict()
        if name == "retinanet":
            old = re.compile(r"^(head\.\w+\.conv)\.(\d)\.0\.")
            state = {old.sub(lambda match: f"{match[1]}.{2 * int(match[2])}.", key): value for key, value in state.items()}
            assert "head.classification_head.conv.6.weight" in state
        mine = model(ours, options).eval()
        found = weights.of_classes(name, state, categories)
        moved = {key: torch.equal(value, state[key]) for key, value in found.items() if key.endswith("running_var")}
        assert set(moved.values()) == {name != "retinanet"}
        mine.load_state_dict(
            {key: value + 1e-5 if name == "retinanet" and key.endswith("running_var") else value for key, value in found.items()}
        )
        answer, expected = (one.head.classification_head(list(one(images, pyramid_only=True).values())) for one in (mine, published))
        torch.testing.assert_close(answer, expected[..., kept], rtol=1e-4, atol=1e-5)


def test_a_classification_network_becomes_the_backbone_of_ssdlite() -> None:
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v3_large(weights=None, norm_layer=partial(torch.nn.BatchNorm2d, eps=0.001)).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    model = SSDLite(1, SSDLiteOptions(reduced_tail=False)).eval()
    model.load_state_dict(weights.with_backbone(network.state_dict(), model))
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model(images, pyramid_only=True)["1"], network.features(images))


def other(network: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torchvision.models.get_model(network, weights=None).state_dict()
    return found


def test_a_file_of_another_network_is_refused() -> None:
    model = FasterRCNN(1, FasterRCNNOptions(backbone="resnet18", width=8, head_width=8))
    with pytest.raises(DataError, match=r"of 100 tensors: 100 missing \(first `bn1.bias`\)"):
        weights.with_backbone(other("mobilenet_v3_small"), model)
    with pytest.raises(DataError, match=r"tensors: \d+ unknown to it \(first `layer1.2.bn1.bias`\)"):
        weights.with_backbone(other("resnet34"), model)  # all that a ResNet-18 has is in it
    wide = {name: value.repeat_interleave(2, 0) if name == "layer4.1.conv2.weight" else value for name, value in other("resnet18").items()}
    with pytest.raises(DataError, match=r"tensors: 1 of another shape \(first `layer4.1.conv2.weight`\)"):
        weights.with_backbone(wide, model)


PROFILE = """
[dataset]
name = "shapes"
train = 4
val = 2
test = 2
image_size = 64
[student]
name = "fasterrcnn"
backbone = "mobilenet_v3_small"
width = 8
head_width = 8
backbone_checkpoint = "network.pth"
[train]
epochs = 1
batch_size = 2
[method]
name = "none"
"""


def test_a_student_starts_from_the_file_of_its_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    registry, path = Registry.load(), tmp_path / "profile.toml"
    path.write_text(PROFILE)
    with pytest.raises(ProfileError, match=r"network\.pth"):
        load(path, registry=registry)
    torch.manual_seed(5)
    network = other("mobilenet_v3_small")
    torch.save({"state_dict": network}, tmp_path / "network.pth")
    profile = load(path, registry=registry)
    task = Detection(build_shapes(ShapesOptions(train=4, val=2, test=2, image_size=64), 0))
    built, notes = build_student(profile, task)
    for name, value in built.backbone.body.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(value, network[f"features.{name}"]), name
    assert notes == ["the weights are `state_dict` of the file"]
    fresh, _ = build_student(profile, task, initial=False)
    head = "roi_heads.box_predictor.cls_score.weight"
    assert torch.equal(fresh.state_dict()[head], built.state_dict()[head])
    assert not torch.equal(fresh.state_dict()["backbone.body.0.0.weight"], network["features.0.0.weight"])
    torch.save(other("resnet18"), tmp_path / "network.pth")
    with pytest.raises(DataError, match="the weights do not fit the backbone of") as caught:
        build_student(profile, task)
    assert caught.value.problems[0].where == "network.pth"


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('weights = "imagenet"', "`student.backbone_checkpoint` has no effect beside `student.weights`"),
        ('checkpoint = "network.pth"', "`student.backbone_checkpoint` has no effect beside `student.checkpoint`"),
        (
            '[teacher]\nname = "fasterrcnn"\ncheckpoint = "network.pth"\nbackbone_checkpoint = "network.pth"',
            "`teacher.backbone_checkpoint` has no effect on a teacher",
        ),
    ],
)
def test_a_file_of_the_backbone_that_nobody_reads_is_refused(
    table: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "network.pth").touch()
    (tmp_path / "profile.toml").write_text(PROFILE.replace("[train]", f"{table}\n[train]").replace('"none"', '"kd"'))
    with pytest.raises(ProfileError, match=told):
        load(tmp_path / "profile.toml", registry=Registry.load())
