"""Networks of torchvision as backbones of a feature pyramid: their last maps at strides 4, 8, 16 and 32."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
import torchvision  # type: ignore[import-untyped]
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN  # type: ignore[import-untyped]
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d  # type: ignore[import-untyped]
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelP6P7  # type: ignore[import-untyped]

from distillctl_detection.timm_backbone import PREFIX, TimmBody

_PROBED = 64
_SIDES = (16, 8, 4, 2)  # of the maps, for images of `_PROBED` pixels


class PooledLevel(ExtraFPNBlock):  # type: ignore[misc]
    """One more level, every second position of the last one: what torchvision's `LastLevelMaxPool` computes, by a module that a hook
    reaches.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(1, 2)

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        """The levels and their names, with one more."""
        return [*results, self.pool(results[-1])], [*names, "pool"]


def pyramid(name: str, *, width: int, trained: int, frozen_norm: bool, one_stage: bool = False) -> BackboneWithFPN:
    """A backbone with fresh weights and a pyramid on it: images (B, 3, H, W) → `0` … `3` and `pool`, (B, width, H/4, W/4) … /64.

    one_stage: it begins at stride 8, and two convolutions go on from it: `0` … `2`, `p6` and `p7`, (B, width, H/8, W/8) … /128.

    The names of its state dict are those of torchvision's own detectors.

    trained: how many of its five parts are trained, from the last one.
    """
    first = 1 if one_stage else 0
    if name.startswith(PREFIX):
        return _on_timm(TimmBody(name, first=first, trained=trained, frozen_norm=frozen_norm), width, one_stage=one_stage)
    norm = {"norm_layer": FrozenBatchNorm2d} if frozen_norm else {}
    network = torchvision.models.get_model(name, weights=None, **norm)
    body = network if hasattr(network, "layer4") else network.features
    last, channels = _last_maps(body)
    _freeze(body, last, 5 - trained)
    maps = {child: str(level) for level, child in enumerate(last[first:])}
    found = BackboneWithFPN(body, maps, channels[first:], width, extra_blocks=LastLevelP6P7(width, width) if one_stage else None)
    assert isinstance(found.fpn, FeaturePyramidNetwork)
    if not one_stage:
        found.fpn.extra_blocks = PooledLevel()
    return found


def _on_timm(body: TimmBody, width: int, *, one_stage: bool) -> BackboneWithFPN:
    """The pyramid on a network that gives its maps itself."""
    found = BackboneWithFPN(
        nn.Sequential(), {}, body.channels[body.first :], width, LastLevelP6P7(width, width) if one_stage else PooledLevel()
    )
    found.body = body
    return found


@torch.no_grad()
def _last_maps(body: nn.Module) -> tuple[list[str], list[int]]:
    """The last children that give maps of each stride, and how many channels those have."""
    modes = [(module, module.training) for module in body.modules()]
    body.eval()
    found: OrderedDict[int, tuple[str, int]] = OrderedDict()
    value = torch.zeros(1, 3, _PROBED, _PROBED)
    for name, child in body.named_children():
        value = child(value)
        found[value.shape[-1]] = (name, value.shape[1])
        if name == "layer4":  # what follows in a classifier
            break
    for module, mode in modes:
        module.training = mode
    maps = [found[side] for side in _SIDES]
    return [name for name, _ in maps], [channels for _, channels in maps]


def _freeze(body: nn.Module, last: list[str], parts: int) -> None:
    """Takes the first parts out of training: the layers before the first block, then what ends with each of the maps."""
    children: list[tuple[str, Any]] = list(body.named_children())
    names = [name for name, _ in children]
    stem = names.index("layer1") if "layer1" in names else 1
    ends = [stem, *(names.index(name) + 1 for name in last)]
    for _, child in children[: ends[parts - 1] if parts else 0]:
        child.requires_grad_(False)
