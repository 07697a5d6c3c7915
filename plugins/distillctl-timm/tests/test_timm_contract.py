"""Networks of each kind keep the contract, at small sizes: maps, tokens, channels last, a fixed size, a head of several layers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distillctl.testing.models import ModelContract
from distillctl_timm.table import find


def small(*names):
    """Their declarations, for images of 64 pixels."""
    return tuple(replace(find(name), input_size=64) for name in names)


class TestMaps(ModelContract):
    specs = small("ghostnet_100")
    sizes = (64, 96)


class TestTokens(ModelContract):
    specs = small("vit_tiny_patch16_224")
    options = {"image_size": 64}


@pytest.mark.slow
class TestMoreMaps(ModelContract):
    specs = small("tf_efficientnet_lite0", "convnext_atto", "regnetx_002", "resnet18", "mobilenetv1_100", "hgnetv2_b0")
    sizes = (64, 96)


@pytest.mark.slow
class TestMoreOfFixedSize(ModelContract):
    specs = small("deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224", "vit_small_patch16_dinov3")
    options = {"image_size": 64}
