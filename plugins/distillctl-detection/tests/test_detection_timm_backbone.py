"""Networks of timm under a pyramid."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import timm
import torch

from distillctl import RunError
from distillctl.models.features import Tapped
from distillctl_detection import plugin, weights
from distillctl_detection.backbones import pyramid
from distillctl_detection.fasterrcnn import FasterRCNN
from distillctl_detection.one_stage import RetinaNet
from distillctl_detection.options import FasterRCNNOptions, RetinaNetOptions


@pytest.mark.parametrize("name", ["timm/resnet10t", "timm/lcnet_035"])
@pytest.mark.parametrize("one_stage", [False, True])
def test_stages_have_the_strides_of_their_numbers(name: str, one_stage: bool) -> None:
    tiny: dict[str, Any] = {"backbone": name, "width": 8}
    model = RetinaNet(3, RetinaNetOptions(**tiny)) if one_stage else FasterRCNN(3, FasterRCNNOptions(**tiny, head_width=8))
    spec = plugin.RETINANET if one_stage else plugin.FASTERRCNN
    tapped = Tapped(model, spec, ["stages", *spec.aside])
    maps = tapped(torch.randn(1, 3, 128, 128), pyramid_only=True)
    for stage in tapped.names:
        assert maps[stage].shape[-1] == 128 // 2 ** int(stage[1]), stage


@pytest.mark.slow
def test_the_backbone_is_that_of_timm_with_the_weights_of_a_file() -> None:
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for name in ("resnet10t", "lcnet_035", "convnext_atto"):  # the last one's names are joined by timm
        torch.manual_seed(0)
        network = timm.create_model(name).eval()
        options = RetinaNetOptions(backbone=f"timm/{name}", width=8)
        model = RetinaNet(3, options).eval()
        found = weights.of_backbone("retinanet", network.state_dict(), options)
        model.load_state_dict({**model.state_dict(), **found})
        expected = (
            network.forward_intermediates(images, intermediates_only=True)[-1] if name != "resnet10t" else network.forward_features(images)
        )
        torch.testing.assert_close(model.backbone.body(images)["2"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("trained", "first"),
    [(5, "conv_stem.weight"), (4, "blocks.1.0.conv_dw.weight"), (2, "blocks.3.0.conv_dw.weight"), (1, "blocks.5.0.conv_dw.weight")],
)
def test_the_first_parts_are_frozen(trained: int, first: str) -> None:
    body = pyramid("timm/lcnet_035", width=8, trained=trained, frozen_norm=True).body
    left = [name for name, parameter in body.named_parameters() if parameter.requires_grad]
    assert left[0] == f"network.{first}"
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in body.modules())


def test_what_cannot_be_a_backbone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, told in (
        ("timm/resnett18", "timm has no network"),
        ("timm/vit_tiny_patch16_224", "strides 4, 8, 16 and 32, and .* has maps at 16"),
    ):
        with pytest.raises(RunError, match=told):
            pyramid(name, width=8, trained=5, frozen_norm=False)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(RunError, match="`timm/resnet10t` needs timm"):
        pyramid("timm/resnet10t", width=8, trained=5, frozen_norm=False)
