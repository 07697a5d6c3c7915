"""MobileNetV1 keeps the contract, has the published shapes, and loads the published layout."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch

from distillctl.models.features import Tapped
from distillctl.testing.models import ModelContract
from distillctl.weights.state_dict import find_weights, load_into
from distillctl_mobilenetv1.network import MobileNetV1
from distillctl_mobilenetv1.plugin import MOBILENET_V1


class TestContract(ModelContract):
    specs = (replace(MOBILENET_V1, input_size=32),)
    sizes = (32, 48)
    batch = 3


def test_shapes_of_the_benchmark():
    model = MobileNetV1(1000).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_231_976
    assert len(model.state_dict()) == 164
    shapes = Tapped(model, MOBILENET_V1, ["stem", "stages", "pooled"]).probe((3, 224, 224))
    assert [shapes[name] for name in ("stem", "stage1", "stage2", "stage3", "stage4", "pooled")] == [
        (32, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (1024, 7, 7), (1024,),
    ]  # fmt: skip


def test_a_stage_is_the_last_block_of_its_size():
    """What comes behind halves the map, or averages it."""
    model = MobileNetV1(5)
    for stage in ("stage1", "stage2", "stage3", "stage4"):
        behind = model.model[int(MOBILENET_V1.stages[stage].removeprefix("model.")) + 1]
        assert isinstance(behind, torch.nn.AdaptiveAvgPool2d) if stage == "stage4" else behind[0].stride == (2, 2), stage


def test_a_stage_is_the_relu_of_what_lies_before():
    tapped = Tapped(MobileNetV1(5).eval(), MOBILENET_V1, [*MOBILENET_V1.stages])
    features = tapped(torch.randn(2, 3, 64, 64))
    for number in (1, 2, 3, 4):
        assert features[f"stage{number}:pre"].min() < 0
        assert torch.equal(features[f"stage{number}:pre"].relu(), features[f"stage{number}"])


def published():
    """A state dict of the published layout, written out: a convolution, then pairs, then the classifier."""
    widths = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
    state = {"model.0.0.weight": torch.randn(32, 3, 3, 3), "fc.weight": torch.randn(1000, 1024), "fc.bias": torch.randn(1000)}
    norms = [("model.0.1", 32)]
    for number, (inputs, outputs) in enumerate(pairwise(widths), 1):
        state |= {f"model.{number}.0.weight": torch.randn(inputs, 1, 3, 3), f"model.{number}.3.weight": torch.randn(outputs, inputs, 1, 1)}
        norms += [(f"model.{number}.1", inputs), (f"model.{number}.4", outputs)]
    for path, width in norms:
        state |= {f"{path}.{part}": torch.rand(width) for part in ("weight", "bias", "running_mean", "running_var")}
        state[f"{path}.num_batches_tracked"] = torch.tensor(7)
    return state


def test_the_published_layout_loads(tmp_path):
    """As mdistiller saves a student: the whole distiller, through DataParallel."""
    state = published()
    torch.save({"model": {f"module.student.{name}": value for name, value in state.items()}, "epoch": 100}, tmp_path / "latest")
    found, _ = find_weights(tmp_path / "latest")
    model = MobileNetV1(1000)
    load_into(model, found, what="student `mobilenet_v1`", classifier="fc")
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
