"""The table of a plugin object's options, which stands in a README and must equal the code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from distillctl.api.options import Options
from distillctl.api.specs import Spec
from distillctl.plugin.registry import load
from distillctl.profile.describe import branches, choices_of, is_table, number
from distillctl.profile.writing import plain, value_text

HEADER = "| option | type | default | bounds | description |\n| --- | --- | --- | --- | --- |"
_BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "min_length": "length ≥", "max_length": "length ≤", "multiple_of": "multiple of"}
_NAMES = {"str": "string", "bool": "true or false", "int": "integer", "float": "number", "Path": "path", "PosixPath": "path"}


def options_table(spec: Spec) -> str:
    """The options of a plugin object as a Markdown table, without a newline at the end; empty if there are none.

    Columns: option, type, default, bounds, description. Tables within the options follow with dotted names.
    """
    if not spec.options:
        return ""
    model: type[Options] = load(spec.options, spec.name)
    rows = [f"| {' | '.join(cells)} |" for cells in _rows(model, "")]
    return "\n".join([HEADER, *rows]) if rows else ""


def _rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str, str]]:
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else f"`{_value(field.get_default(call_default_factory=True))}`"
        description = " ".join((field.description or "").split()).replace("|", "\\|")
        parts = [*parts_of(field.annotation)]
        metadata = [*field.metadata, *(item for _, found in parts for item in found)]
        yield f"`{prefix}{name}`", _type(field.annotation), default, _bounds(metadata), description
        for part, _ in parts:
            if is_table(part):
                yield from _rows(part, f"{prefix}{name}.")


def parts_of(annotation: Any) -> Iterator[tuple[Any, list[Any]]]:
    """The types of an option, those within lists and mappings too, each with what is said about it."""
    for part, metadata in branches(annotation):
        yield part, metadata
        for argument in get_args(part):
            yield from parts_of(argument)


def _type(annotation: Any) -> str:
    """`number`, `"a"` or `"b"`, `table` …, joined by `or`."""
    return " or ".join(dict.fromkeys(_one_type(part) for part, _ in branches(annotation)))


def _one_type(annotation: Any) -> str:
    if choices := choices_of(annotation):
        return " or ".join(f"`{_value(choice)}`" for choice in choices)
    if is_table(annotation) or get_origin(annotation) is dict:
        return "table"
    if get_origin(annotation) in (list, tuple):
        return f"list of {_type(get_args(annotation)[0])}"
    name: str = annotation.__name__
    return _NAMES.get(name, name)


def _bounds(metadata: list[Any]) -> str:
    found = ((sign, getattr(item, attribute, None)) for item in metadata for attribute, sign in _BOUNDS.items())
    return ", ".join(dict.fromkeys(f"{sign} {number(value)}" for sign, value in found if value is not None))


def _value(value: object) -> str:
    """A value as one writes it in a profile."""
    return "none" if value is None else value_text(plain(value))
