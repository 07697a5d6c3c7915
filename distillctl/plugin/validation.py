"""What a spec must be before its name gets into a list: of the declared types, and with names that are harmless wherever they are shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from distillctl.api.specs import CommandSpec, DatasetSpec, ModelFamily, Preset, Spec, WeightsInput

MAX_NAME = 100
"""Characters of a name."""

_NAME = re.compile(r"\w[\w.+\-]*")
_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)


def malformed(spec: Spec) -> str:
    """What is wrong with a spec, as a sentence; empty if it is well formed."""
    kind = type(spec).__name__
    for attribute in ("name", "summary", "implementation"):
        value = getattr(spec, attribute)
        if type(value) is not str or not value:
            return f"{kind} without a `{attribute}`"
    names = [spec.name, *([spec.namespace] if spec.namespace else ())]
    if not all(_is_name(name) for name in names):
        return f"{kind} with a name that is no name, {ascii(spec.qualified)[:80]}: letters, digits and `_`, `-`, `.`, `+`"
    if wrong := _wrong_field(spec):
        return f"`{wrong}` of `{spec.name}` is not of the type that {kind} declares"
    if not all(part and _is_name(part) for alias in spec.aliases for part in alias.split("/")):
        return f"`aliases` of `{spec.name}` has a name that is no name"
    if isinstance(spec, DatasetSpec) and not _is_name(spec.task):
        return f"`task` of `{spec.name}` is not a name"
    if isinstance(spec, ModelFamily) and not spec.names:
        return f"the family `{spec.name}` has no `names`"
    if isinstance(spec, CommandSpec) and spec.options:
        return f"the command `{spec.name}` has `options`, which are the parameters of its function"
    if wrong := next((wrong for seen in getattr(spec, "weights_input", {}).values() if (wrong := _wrong_field(seen))), ""):
        return f"`weights_input.{wrong}` of `{spec.name}` is not of the type that WeightsInput declares"
    references = [
        ("implementation", spec.implementation),
        ("options", spec.options),
        ("weights_loader", getattr(spec, "weights_loader", "")),
        ("weights_top1", getattr(spec, "weights_top1", "")),
        ("preview", getattr(spec, "preview", "")),
        ("names", getattr(spec, "names", "")),
    ]
    for what, reference in references:
        if reference and not _REFERENCE.fullmatch(reference):
            return f"the {what} of `{spec.name}` is not of the form `package.module:attribute`"
    return ""


def _is_name(text: Any) -> bool:
    return type(text) is str and len(text) <= MAX_NAME and _NAME.fullmatch(text) is not None


def _wrong_field(value: Spec | Preset | WeightsInput) -> str:
    """The first field that is not of its declared type."""
    kind: Any = type(value)
    for name, hint in _fields(kind).items():
        held = getattr(value, name)
        if not _fits(held, hint):
            return name
        if name == "presets":
            inner = next((wrong for preset in held if (wrong := _wrong_field(preset))), "")
            if inner:
                return f"presets.{inner}"
    return ""


@cache
def _fields(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _fits(value: object, hint: Any) -> bool:
    """Whether a value is of a type that specs use. Subclasses do not count: they could do anything when they are compared or printed."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return type(value) is str and value in arguments
    if origin is tuple:
        return isinstance(value, tuple | list) and type(value) in (tuple, list) and all(_fits(item, arguments[0]) for item in value)
    if origin is not None:  # Mapping[str, …]
        return isinstance(value, dict | MappingProxyType) and all(
            type(key) is str and _fits(item, arguments[1]) for key, item in value.items()
        )
    if hint is float:
        return type(value) in (int, float)
    return hint is object or type(value) is hint
