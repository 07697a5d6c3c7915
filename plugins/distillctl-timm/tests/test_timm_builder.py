"""Options arrive in timm, and what a network does not take is refused in a sentence."""

from __future__ import annotations

import sys

import pytest
import torch

from distillctl import ProfileError, RunError
from distillctl.models.features import Tapped
from distillctl_timm.builder import build
from distillctl_timm.options import FixedSizeOptions, ResNetOptions, TimmOptions
from distillctl_timm.table import find


def test_options_arrive():
    model = build("test_efficientnet", 5, TimmOptions(dropout=0.25, stochastic_depth=0.5))
    assert model.get_classifier().out_features == 5
    assert model.drop_rate == 0.25
    assert max(getattr(module, "drop_prob", 0) or 0 for module in model.modules()) > 0
    assert build("test_efficientnet", 5, TimmOptions()).drop_rate == 0
    assert build("test_vit", 5, FixedSizeOptions(image_size=64)).patch_embed.img_size == (64, 64)


@pytest.mark.parametrize("name", ["test_resnet", "skresnet18"])  # the latter's first convolution behind a stage takes half of it
def test_a_resnet_ends_after_a_stage(name):
    model = build(name, 5, ResNetOptions(stages=2)).eval()
    assert find(name).options.endswith(":ResNetOptions")
    names = list(find(name).ending_after(2).stages)
    assert [stage for stage in names if ":" not in stage] == ["stem", "stage1", "stage2"]
    features = Tapped(model, find(name).ending_after(2), ["last", "pooled", "stages"])(torch.randn(2, 3, 64, 64))
    assert torch.equal(features["last"], features["stage2"])
    torch.testing.assert_close(features["stage2"].mean((2, 3)), features["pooled"])
    assert features["logits"].shape == (2, 5)


def test_what_a_network_does_not_take_is_refused():
    with pytest.raises(ProfileError, match="`timm/ghostnet_100` takes no `stochastic_depth`: timm builds it without `drop_path_rate`"):
        build("ghostnet_100", 5, TimmOptions(stochastic_depth=0.1))


def test_without_timm_the_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(RunError, match="`timm/resnet18` needs timm") as caught:
        build("resnet18", 5, TimmOptions())
    assert caught.value.problems[0].hint == "pip install timm"
