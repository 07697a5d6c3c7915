"""The tables that stand in READMEs and must equal the code: options of a plugin object, and methods of all packages."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import PurePath
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from distillctl.api.options import Options
from distillctl.api.specs import Spec
from distillctl.plugin.registry import Registry, load

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


def methods_table(registry: Registry, packages: Collection[str]) -> str:
    """The methods that these packages provide as a Markdown table, by name, without a newline at the end.

    Columns: method, kind, what it does, paper, package. An arXiv id becomes a link.
    """
    rows = ["| method | kind | what it does | paper | package |", "| --- | --- | --- | --- | --- |"]
    for spec in registry.methods:
        package = registry.methods.plugin(spec).package
        if package in packages:
            paper = re.sub(r"arXiv (\d{4}\.\d{4,5})", r"arXiv [\1](https://arxiv.org/abs/\1)", spec.paper)
            cells = (f"`{registry.methods.shown_name(spec)}`", spec.kind, spec.summary, paper, f"`{package}`")
            rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows)


def _rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str, str]]:
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else f"`{_toml(field.get_default(call_default_factory=True))}`"
        description = " ".join((field.description or "").split()).replace("|", "\\|")
        yield f"`{prefix}{name}`", _type(field.annotation), default, _bounds(field), description
        for table in _tables(field.annotation):
            yield from _rows(table, f"{prefix}{name}.")


def _type(annotation: Any) -> str:
    """`float`, `"a"` or `"b"`, `table` …, joined by `or`."""
    arguments = get_args(annotation)
    if isinstance(annotation, type) and not arguments:
        return "table" if issubclass(annotation, BaseModel) else _NAMES.get(annotation.__name__, annotation.__name__)
    if get_origin(annotation) in (list, tuple):
        return f"list of {_type(arguments[0])}"
    if get_origin(annotation) is dict:
        return "table"
    if arguments and hasattr(annotation, "__metadata__"):
        return _type(arguments[0])
    if arguments and all(isinstance(a, str | int | float | bool) for a in arguments):
        return " or ".join(f"`{_toml(a)}`" for a in arguments)
    return " or ".join(dict.fromkeys(_type(a) for a in arguments if a is not type(None)))


def _tables(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _tables(argument)


def _bounds(field: FieldInfo) -> str:
    found: dict[str, None] = {}
    metadata = [*field.metadata, *_metadata(field.annotation)]
    for item in metadata:
        for attribute, sign in _BOUNDS.items():
            value = getattr(item, attribute, None)
            if value is not None:
                found[f"{sign} {_toml(value)}"] = None
    return ", ".join(found)


def _metadata(annotation: Any) -> Iterator[Any]:
    """Constraints inside of unions and lists."""
    for item in getattr(annotation, "__metadata__", ()):
        yield from item.metadata if isinstance(item, FieldInfo) else (item,)
    if get_origin(annotation) is not None or isinstance(annotation, type(Union[int, str])):  # noqa: UP007
        for argument in get_args(annotation):
            yield from _metadata(argument)


def _toml(value: object) -> str:
    """A value as one writes it in a profile."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | PurePath):
        return f'"{value}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(v) for v in value)}]"
    if isinstance(value, float):
        return f"{value:g}" if "e" in f"{value:g}" else repr(value)
    return "none" if value is None else str(value)
