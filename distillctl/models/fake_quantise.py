"""Training for 8 bits: convolutions and linear layers compute with weights and inputs as int8 will have them.

As in Jacob et al. 2018 (arXiv 1712.05877), values are rounded in the forward and gradients pass where nothing was cut off. Weights have
a scale for each output channel, so that folding batch normalisation into them later changes nothing: a factor of a channel is a factor
of its scale. Inputs have one range for a layer, a moving average of what was seen in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

RANGE = "input_range"
_MOMENTUM = 0.05
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class _Quantised(nn.Module):
    """What such a layer does more than its own class. Its parameters keep their names and their values in float32."""

    input_range: Tensor  # lowest and highest value, which lie around 0; both 0 as long as nothing was seen

    @property
    def weight(self) -> Tensor:
        """The weight as int8 has it: -127 … 127 times the scale of its output channel."""
        weight = self._parameters["weight"]
        assert weight is not None
        scale = weight.detach().flatten(1).abs().amax(1).float().clamp(min=torch.finfo(torch.float32).tiny) / 127
        return torch.fake_quantize_per_channel_affine(weight, scale, torch.zeros_like(scale, dtype=torch.int32), 0, -127, 127)

    def forward(self, values: Tensor, *args: Any, **keywords: Any) -> Any:
        if self.training and torch.is_grad_enabled():
            self._see(values.detach())
        return super().forward(_rounded(values, self.input_range), *args, **keywords)

    @torch.no_grad()
    def _see(self, values: Tensor) -> None:
        seen = torch.stack([values.amin().clamp(max=0), values.amax().clamp(min=0)]).float()
        first = (self.input_range == 0).all()
        self.input_range.copy_(torch.where(first, seen, self.input_range.lerp(seen, _MOMENTUM)))


def _rounded(values: Tensor, within: Tensor) -> Tensor:
    """Values on a grid of 256 steps that has 0 in it; as they are where no range is known."""
    known = within[1] > within[0]
    scale = torch.where(known, (within[1] - within[0]) / 255, 1.0)
    zero = (-within[0] / scale).round().to(torch.int32)
    grid = torch.fake_quantize_per_tensor_affine(values.float(), scale, zero, 0, 255).to(values.dtype)
    return torch.where(known, grid, values)


@cache
def _quantised_class(plain: type) -> type:
    return type(f"Quantised{plain.__name__}", (_Quantised, plain), {})


def quantise(model: nn.Module, ranges: Mapping[str, Sequence[float]] | None = None) -> None:
    """Makes all convolutions and linear layers of a model compute as int8 will. Names in its state dict stay; each layer has one more.

    ranges: of the inputs, by the layer's name, where they are known.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, _LAYERS) and not isinstance(layer, _Quantised):
            plain: type = type(layer)
            device = layer.weight.device
            setattr(layer, "__class__", _quantised_class(plain))  # noqa: B010 - mypy knows no layers that change their class
            known = (ranges or {}).get(name, (0.0, 0.0))
            layer.register_buffer(RANGE, torch.tensor(known, dtype=torch.float32, device=device))


def restore(model: nn.Module) -> None:
    """The inverse of `quantise`: all layers compute in floating point again."""
    for _, layer in _layers(model):
        layer.__class__ = type(layer).__bases__[1]
        del layer._buffers[RANGE]


def ranges_of(model: nn.Module) -> dict[str, list[float]]:
    """Ranges of the inputs by the layer's name, of those that have seen any."""
    found = {name: [float(value) for value in layer.input_range] for name, layer in _layers(model)}
    return {name: both for name, both in found.items() if both[1] > both[0]}


def plain_state(model: nn.Module) -> dict[str, Any]:
    """The state dict without what quantisation has added."""
    added = {f"{name}.{RANGE}" if name else RANGE for name, _ in _layers(model)}
    return {name: value for name, value in model.state_dict().items() if name not in added}


def has_ranges(state: Mapping[str, Any]) -> bool:
    """Whether a state dict is that of a quantised model."""
    return any(name.rpartition(".")[2] == RANGE for name in state)


def _layers(model: nn.Module) -> Iterator[tuple[str, _Quantised]]:
    return ((name, layer) for name, layer in model.named_modules() if isinstance(layer, _Quantised))
