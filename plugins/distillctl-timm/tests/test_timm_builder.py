"""Options arrive in timm, and what a network does not take is refused in a sentence."""

from __future__ import annotations

import sys

import pytest

from distillctl import ProfileError, RunError
from distillctl_timm.builder import build
from distillctl_timm.options import FixedSizeOptions, TimmOptions


def test_options_arrive():
    model = build("test_efficientnet", 5, TimmOptions(dropout=0.25, stochastic_depth=0.5))
    assert model.get_classifier().out_features == 5
    assert model.drop_rate == 0.25
    assert max(getattr(module, "drop_prob", 0) or 0 for module in model.modules()) > 0
    assert build("test_efficientnet", 5, TimmOptions()).drop_rate == 0
    assert build("test_vit", 5, FixedSizeOptions(image_size=64)).patch_embed.img_size == (64, 64)


def test_what_a_network_does_not_take_is_refused():
    with pytest.raises(ProfileError, match="`timm/ghostnet_100` takes no `stochastic_depth`: timm builds it without `drop_path_rate`"):
        build("ghostnet_100", 5, TimmOptions(stochastic_depth=0.1))


def test_without_timm_the_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(RunError, match="`timm/resnet18` needs timm") as caught:
        build("resnet18", 5, TimmOptions())
    assert caught.value.problems[0].hint == "pip install timm"
