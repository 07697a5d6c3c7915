"""What a plugin's method or task may return, and the one sentence that is said of anything else.

Only types, shapes and flags are looked at, never values: nothing waits for the device, and compiled code holds none of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from distillctl.api.relabel import Guesses, Relabels
from distillctl.errors import PluginError

EXPECTED = "a 0-dim float tensor with a gradient"
_FORMS = 'one tensor, or several by name: `{"near": …, "far": …}`'


def check_terms(result: object, owner: str, device: torch.device) -> dict[str, Tensor]:
    """The terms that a method or a task returned, by name; a bare tensor is called `""`.

    owner: whose they are, for the message: ``the method `kd` ``. device: of the batch.

    Raises:
        PluginError: it is neither a 0-dim float tensor on the device nor a dict of such.
    """
    terms: dict[Any, Any] = result if isinstance(result, dict) else {"": result}
    for name, value in terms.items():
        if not isinstance(name, str):
            raise PluginError(f"{owner} returned a term under {name!r}, where its name is expected as text", hint=f"return {_FORMS}")
        if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point() or value.device != device:
            what = f" as its term `{name}`" if name else ""
            where = f" on {device}" if isinstance(value, Tensor) and value.device != device else ""
            raise PluginError(f"{owner} returned {described(value)}{what}, where {EXPECTED}{where} is expected", hint=_hint(value))
    return terms


def check_metrics(result: object, owner: str) -> dict[str, Tensor]:
    """What `Method.metrics` returned.

    Raises:
        PluginError: it is not a dict of 0-dim tensors.
    """
    if not isinstance(result, Mapping):
        raise PluginError(f"`metrics` of {owner} returned {described(result)}, where a dict of 0-dim tensors is expected")
    for name, value in result.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.ndim or value.is_complex():
            raise PluginError(f"`metrics` of {owner} returned {described(value)} as `{name}`, where a 0-dim tensor is expected")
    return dict(result)


def check_relabels(result: object, guesses: Guesses, owner: str) -> None:
    """Raises PluginError unless this is what `Method.relabel` has to return for these guesses."""
    if not isinstance(result, Relabels):
        raise PluginError(f"`relabel` of {owner} returned {described(result)}, where `Relabels` is expected")
    for name, wanted in (("weights", guesses.scores), ("images", guesses.labelled)):
        value = getattr(result, name)
        if not isinstance(value, Tensor) or (value.shape, value.dtype) != (wanted.shape, wanted.dtype):
            raise PluginError(f"`relabel` of {owner} gave {described(value)} as `{name}`, where {described(wanted)} is expected")


def described(value: object) -> str:
    """What a value is, in words: `None`, `a list`, `a tensor of shape (4,)`, `a 0-dim int64 tensor`."""
    if value is None:
        return "None"
    if not isinstance(value, Tensor):
        name = type(value).__name__
        return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
    kind = "" if value.is_floating_point() else f" {str(value.dtype).removeprefix('torch.')}"
    article = "an" if kind.startswith(" int") else "a"
    place = "" if value.device.type == "cpu" else f" on {value.device}"
    if value.ndim == 0:
        return f"a 0-dim{kind} tensor{place or ' on cpu'}"
    return f"{article}{kind} tensor of shape {tuple(value.shape)}{place}"


def _hint(value: Any) -> str:
    if isinstance(value, Tensor) and value.ndim:
        return "reduce it to one number: `.mean()`"
    if isinstance(value, list | tuple | Mapping):
        return f"return {_FORMS}"
    if value is None:
        return "does the function end without `return`?"
    return ""


__all__ = ["EXPECTED", "check_metrics", "check_relabels", "check_terms", "described"]
