"""Networks of timm as backbones of a feature pyramid: their maps at strides 4, 8, 16 and 32."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from distillctl import RunError

PREFIX = "timm/"
_STRIDES = (4, 8, 16, 32)
_PROBED = 64


class TimmBody(nn.Module):
    """A network of timm with fresh weights: images (B, 3, H, W) → its maps by level, `0` for stride 4 to `3`.

    channels: of the four maps. first: leaves out the maps before this one.

    Raises:
        RunError: timm is not installed, does not know the network, or the network has no such maps.
    """

    def __init__(self, name: str, *, first: int, trained: int, frozen_norm: bool) -> None:
        super().__init__()
        timm = _timm(name)
        own = name.removeprefix(PREFIX)
        if not timm.is_model(own):
            raise RunError(f"timm has no network `{own}`", hint="`distillctl list-models 'timm/*'` lists its networks")
        with torch.device("meta"):
            strides = timm.create_model(own, features_only=True).feature_info.reduction()
        if not set(_STRIDES) <= set(strides):
            told = ", ".join(map(str, strides))
            raise RunError(f"a pyramid is built on maps at strides 4, 8, 16 and 32, and `{name}` has maps at {told}")
        network: Any = timm.create_model(own, features_only=True, out_indices=tuple(strides.index(one) for one in _STRIDES))
        self.channels = list(network.feature_info.channels())
        _check_shapes(network, name, self.channels)
        _freeze(network, name, 5 - trained)
        self.network = timm.layers.freeze_batch_norm_2d(network) if frozen_norm else network
        self.first = first

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The maps from the first that is wanted."""
        return OrderedDict((str(level), one) for level, one in enumerate(self.network(images)[self.first :]))


def _timm(name: str) -> Any:
    try:
        import timm
    except ImportError as error:
        raise RunError(f"`{name}` needs timm: {error}", hint="pip install 'distillctl-detection[timm]'") from error
    return timm


@torch.no_grad()
def _check_shapes(network: nn.Module, name: str, channels: list[int]) -> None:
    modes = [(module, module.training) for module in network.modules()]
    found = [tuple(one.shape[1:]) for one in network.eval()(torch.zeros(1, 3, _PROBED, _PROBED))]
    for module, mode in modes:
        module.training = mode
    expected = [(width, _PROBED // stride, _PROBED // stride) for width, stride in zip(channels, _STRIDES, strict=True)]
    if found != expected:
        raise RunError(f"`{name}` gives maps of shapes {found}, where a pyramid needs {expected}")


def _freeze(network: Any, name: str, parts: int) -> None:
    """Takes the first parts out of training: what comes before the first map's module, then what ends with each of the maps."""
    if not parts:
        return
    names = [one for one, _ in network.named_parameters()]
    last = [
        path if any(one.startswith(f"{path}.") for one in names) else path.replace(".", "_") for path in network.feature_info.module_name()
    ]
    inside = [[number for number, one in enumerate(names) if one.startswith(f"{path}.")] for path in last]
    if not all(inside):
        raise RunError(f"`{name}` does not say where its parts end", hint="state `trained_stages = 5`")
    ends = [inside[0][0], *(numbers[-1] + 1 for numbers in inside)]
    for _, parameter in list(network.named_parameters())[: ends[parts - 1]]:
        parameter.requires_grad_(False)
