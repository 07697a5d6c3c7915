"""Targets of a batch on their way from a worker to the device: one tensor for each key, since each that is handed over costs time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Packed(NamedTuple):
    """Dicts of tensors with the same keys.

    values: for each key the numbers of all, one after the other, (n,).
    shapes: for each key the shape of each.
    """

    values: Mapping[str, Tensor]
    shapes: Mapping[str, Sequence[Sequence[int]]]


def pack(targets: Sequence[Mapping[str, Tensor]]) -> Packed:
    """One tensor for each key of these dicts, of which there is at least one."""
    keys = list(targets[0])
    values = {key: torch.cat([target[key].reshape(-1) for target in targets]) for key in keys}
    return Packed(values, {key: [list(target[key].shape) for target in targets] for key in keys})


def unpack(packed: Packed, moved: Callable[..., Sequence[Tensor]]) -> list[dict[str, Tensor]]:
    """The dicts again. moved: takes tensors and gives them where they are wanted."""
    columns = []
    for values, shapes in zip(moved(*packed.values.values()), packed.shapes.values(), strict=True):
        parts = values.split([torch.Size(shape).numel() for shape in shapes])
        columns.append([part.view(tuple(shape)) for part, shape in zip(parts, shapes, strict=True)])
    return [dict(zip(packed.values, row, strict=True)) for row in zip(*columns, strict=True)]
