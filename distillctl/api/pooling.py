"""Adaptive pooling that gives the same bits each time on a GPU too, while a run is `deterministic`.

torch's adaptive pooling adds up its gradients there in any order, and raises an error where deterministic algorithms are asked for. Here
its results come from operations that have an order: as far as rounding goes they are the same. Elsewhere it is torch's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pool_average(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Averages of maps (…, C, H, W) over a grid of cells, (…, C, h, w): `adaptive_avg_pool2d`, which `deterministic` allows."""
    height, width = maps.shape[-2:]
    if size == (1, 1) or not _in_order(maps):
        return F.adaptive_avg_pool2d(maps, size)  # torch takes the plain mean for one cell
    if size == (height, width):
        return maps
    if height % size[0] == 0 and width % size[1] == 0:
        return F.avg_pool2d(maps, (height // size[0], width // size[1]))
    with torch.autocast(maps.device.type, enabled=False):
        wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
        rows, columns = _shares(height, size[0], wide), _shares(width, size[1], wide)
        return (rows @ wide @ columns.mT).to(maps.dtype)


def pool_maximum(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maxima of maps (…, C, H, W) over a grid of cells, (…, C, h, w): `adaptive_max_pool2d`, which `deterministic` allows."""
    if not _in_order(maps):
        return F.adaptive_max_pool2d(maps, size)
    _, places = F.adaptive_max_pool2d(maps.detach(), size, return_indices=True)
    return maps.flatten(-2).gather(-1, places.flatten(-2)).view(places.shape)


def pools_in_order(module: nn.Module) -> None:
    """Makes the adaptive pooling layers in a module those of here, in place; hooks, names and the state dict stay."""
    for layer in module.modules():
        if type(layer) is nn.AdaptiveAvgPool2d:
            layer.__class__ = _Average
        elif type(layer) is nn.AdaptiveMaxPool2d and not layer.return_indices:
            layer.__class__ = _Maximum


class _Average(nn.AdaptiveAvgPool2d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in the base class
        return pool_average(input, _size(self.output_size, input))


class _Maximum(nn.AdaptiveMaxPool2d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in the base class
        return pool_maximum(input, _size(self.output_size, input))


def _in_order(maps: Tensor) -> bool:
    return maps.is_cuda and torch.are_deterministic_algorithms_enabled()


def _size(wanted: int | tuple[int | None, ...] | None, maps: Tensor) -> tuple[int, int]:
    """An option of torch's layers in numbers: None keeps the size, and one number is for both."""
    height, width = wanted if isinstance(wanted, tuple) else (wanted, wanted)
    return (maps.shape[-2] if height is None else height), (maps.shape[-1] if width is None else width)


def _shares(length: int, cells: int, like: Tensor) -> Tensor:
    """How much each position contributes to the average of each cell, (cells, length); cells overlap where they do not divide it."""
    cell = torch.arange(cells, device=like.device).unsqueeze(1)
    place = torch.arange(length, device=like.device)
    begin, end = cell * length // cells, ((cell + 1) * length + cells - 1) // cells
    inside = (place >= begin) & (place < end)
    return inside.to(like.dtype) / (end - begin)
