"""Finds the mapping of names to tensors in whatever a program saved around it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from distillctl.errors import DataError
from distillctl.text import one_line

_CONTAINERS = ("student", "state_dict_ema", "model_ema", "model_state_dict", "state_dict", "model", "net", "network", "weights", "module")
"""Keys under which programs keep the weights, most telling first. `student`: our own checkpoints.

Moving averages come before what they average, since the programs that write both evaluate and publish the average (timm, and
torchvision's references). `module`: DeepSpeed.
"""

_DEPTH = 4
"""Mappings within mappings that are looked into."""

_SHOWN = 60
"""Characters of a name from a file that stand in a message."""


def weights_in(value: object, path: Path) -> dict[str, Tensor]:
    """The weights inside whatever a file holds; `path` is named in messages.

    Raises:
        DataError: there are none, or nobody can tell which they are.
    """
    for _ in range(_DEPTH):
        if not isinstance(value, Mapping):
            break
        if (inner := _inner(value)) is None:
            tensors = {name: v for name, v in value.items() if isinstance(name, str) and isinstance(v, Tensor)}
            if tensors:
                return tensors
            break
        value = inner
    what = f"a mapping with the keys {_list(value)}" if isinstance(value, Mapping) else f"of type {type(value).__name__.lstrip('_')}"
    raise DataError(f"`{path}` holds no weights that can be found: its content is {what}", hint="save the `state_dict()` of the model")


def shown(text: object) -> str:
    """A name from a file in backticks, short and without characters that a terminal obeys."""
    return f"`{one_line(text, _SHOWN)}`"


def is_plain(value: Tensor) -> bool:
    """Whether a tensor is dense, with its numbers as they are and at hand."""
    return value.layout == torch.strided and not value.is_quantized and not value.is_meta


def not_plain(weights: str, name: str, value: Tensor) -> DataError:
    """What is said of weights of which one is not plain. weights: which, and what they are not."""
    kind = "without content" if value.is_meta else f"{value.dtype}, {value.layout}".replace("torch.", "")
    return DataError(
        f"the weights {weights} (first {name}: {kind})",
        hint="save them dense and as floating point numbers: quantised weights do not say what they stand for",
    )


def _inner(value: Mapping[object, object]) -> Mapping[object, object] | None:
    """The part of a checkpoint that holds the weights; None if it holds them itself."""
    average = value.get("ema")
    if "student" in value and isinstance(average, Mapping):  # our own, with the moving average that was evaluated
        value = {"student": average.get("model")}
    for key in _CONTAINERS:
        part = value.get(key)
        if isinstance(part, Mapping) and _holds_tensors(part, _DEPTH, set()):
            return part
    # One group of tensors under a name that we do not know; tensors beside it are figures such as the accuracy.
    groups = [part for part in value.values() if isinstance(part, Mapping) and part and all(isinstance(v, Tensor) for v in part.values())]
    lying_open = sum(isinstance(part, Tensor) for part in value.values())
    return groups[0] if len(groups) == 1 and len(groups[0]) > lying_open else None


def _holds_tensors(value: object, depth: int, seen: set[tuple[int, int]]) -> bool:
    """seen: mappings that were looked into, with the depth: one that holds itself a thousand times is looked into once."""
    if isinstance(value, Mapping):
        if depth == 0 or (id(value), depth) in seen:
            return False
        seen.add((id(value), depth))
        return any(_holds_tensors(part, depth - 1, seen) for part in value.values())
    return isinstance(value, Tensor)


def _list(value: Mapping[object, object]) -> str:
    keys = ", ".join(shown(key) if isinstance(key, str | int | float) else f"`{type(key).__name__}`" for key in list(value)[:6])
    return f"{keys}, …" if len(value) > 6 else keys or "(none)"
