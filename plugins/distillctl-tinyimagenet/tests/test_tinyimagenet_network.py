from __future__ import annotations

from dataclasses import replace

import torch

from distillctl.models.features import Tapped
from distillctl.testing.models import ModelContract
from distillctl_tinyimagenet.network import MobileNetV2
from distillctl_tinyimagenet.plugin import MOBILENET_V2


class TestContract(ModelContract):
    specs = (replace(MOBILENET_V2, input_size=16),)
    sizes = (16, 24)
    batch = 3


def test_numbers_and_shapes_of_published_runs():
    """What was counted in mdistiller's network."""
    model = MobileNetV2(200).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == 2_497_480
    assert len(model.state_dict()) == 373
    names = ("stem", "stage1", "stage2", "stage3", "stage4", "pooled")
    shapes = Tapped(model, MOBILENET_V2, ["stem", "stages", "pooled"]).probe((3, 64, 64))
    assert [shapes[name] for name in names] == [(32, 66, 66), (24, 33, 33), (32, 17, 17), (64, 9, 9), (1280, 9, 9), (1280,)]


def test_the_last_stage_is_the_relu6_of_what_lies_before():
    features = Tapped(MobileNetV2(5).eval(), MOBILENET_V2, ["stage4", "stage4:pre"])(torch.randn(2, 3, 32, 32))
    assert features["stage4:pre"].min() < 0
    assert torch.equal(torch.nn.functional.relu6(features["stage4:pre"]), features["stage4"])
