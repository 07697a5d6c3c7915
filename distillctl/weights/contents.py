"""Finds the mapping of names to tensors in whatever a program saved around it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from distillctl.errors import DataError
from distillctl.text import one_line, some
from distillctl.weights.quantised import refuse_quantised

_CONTAINERS = (
    *("student", "state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema_model", "params_ema"),
    *("model_state_dict", "state_dict", "model", "net", "network", "weights", "params", "module"),
)
"""Keys under which programs keep the weights, most telling first. `student`: our own checkpoints.

Moving averages come before what they average, since the programs that write both evaluate and publish the average (timm, and
torchvision's references). `module`: DeepSpeed.
"""

Side = Literal["student", "teacher", "model"]
"""Whose weights are wanted of a distiller's. `model`: of a network that is evaluated, as of a student."""

_DEPTH = 4
"""Mappings within mappings that are looked into."""

_SHOWN = 60
"""Characters of a name from a file that stand in a message."""


class Found(NamedTuple):
    """Weights by name. place: the keys that lead to them, with dots between. others: keys beside the last of them that hold weights too."""

    tensors: dict[str, Tensor]
    place: str = ""
    others: tuple[str, ...] = ()


def weights_in(value: object, path: Path, key: str = "", side: Side = "student") -> Found:
    """The weights inside whatever a file holds; `path` is named in messages.

    key: where they are, if that is stated: keys with dots between, of which the last ones may begin the names of the tensors.
    side: whose weights are wanted where a file has both.

    Raises:
        DataError: there are none, or nobody can tell which they are.
    """
    place: list[str] = []
    others: tuple[str, ...] = ()
    rest = key.split(".") if key else []
    while rest and isinstance(value, Mapping) and isinstance(value.get(rest[0]), Mapping):
        value = value[rest[0]]
        place.append(rest.pop(0))
    for _ in range(_DEPTH):
        if not isinstance(value, Mapping):
            break
        name, inner, beside = _inner(value, side)
        if inner is None:
            tensors = {name: v for name, v in value.items() if isinstance(name, str) and isinstance(v, Tensor)}
            if rest:
                front = ".".join(rest) + "."
                tensors = {name.removeprefix(front): v for name, v in tensors.items() if name.startswith(front)}
                if not tensors:
                    raise DataError(f"`{path}` has nothing under `{key}`: its content is a mapping with the keys {_list(value)}")
            if tensors:
                refuse_quantised(value, path)
                return Found(tensors, ".".join([*place, *rest]), others)
            break
        value, others = inner, others or beside
        place.append(name)
    what = f"a mapping with the keys {_list(value)}" if isinstance(value, Mapping) else f"of type {type(value).__name__.lstrip('_')}"
    hint = "save the `state_dict()` of the model"
    parts = (
        [name for name, part in value.items() if isinstance(name, str) and _holds_tensors(part, 1, set())]
        if isinstance(value, Mapping)
        else []
    )
    if parts:
        hint = f"`{side}.key` says which part of it: {some(parts)}"
    elif isinstance(value, Mapping) and any(isinstance(name, str) and name.endswith(".weight") for name in value):
        what += ", of which none is a tensor"
        hint = "arrays of numpy become tensors by `torch.from_numpy`: save them so"
    raise DataError(f"`{path}` holds no weights that can be found: its content is {what}", hint=hint)


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


def _inner(value: Mapping[object, object], side: Side) -> tuple[str, Mapping[object, object] | None, tuple[str, ...]]:
    """The part of a checkpoint that holds the weights, its key, and the other keys that do; None if it holds them itself."""
    average = value.get("ema")
    if "student" in value and isinstance(average, Mapping):  # our own, with the moving average that was evaluated
        value = {"student": average.get("model")}
    order = ("teacher", *_CONTAINERS) if side == "teacher" else _CONTAINERS
    holding = [(key, part) for key in order if isinstance(part := value.get(key), Mapping) and _holds_tensors(part, _DEPTH, set())]
    if holding:
        return *holding[0], tuple(key for key, _ in holding[1:])
    # One group of tensors under a name that we do not know; tensors beside it are figures such as the accuracy.
    groups = [(k, p) for k, p in value.items() if isinstance(p, Mapping) and p and all(isinstance(v, Tensor) for v in p.values())]
    lying_open = sum(isinstance(part, Tensor) for part in value.values())
    if len(groups) == 1 and len(groups[0][1]) > lying_open:
        return str(groups[0][0]), groups[0][1], ()
    return "", None, ()


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
