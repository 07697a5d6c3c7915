"""Types, bounds and values of options in plain words, for error messages and for `show`."""

from __future__ import annotations

import datetime
import types
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_NOUNS = {int: "integer", float: "number", str: "string", bool: "boolean", Path: "path", dict: "table", list: "list", tuple: "list"}


def unwrap(annotation: Any, metadata: Iterable[Any] = ()) -> tuple[Any, list[Any]]:
    """The type inside `Annotated`, and all that is said about it."""
    found = list(metadata)
    while get_origin(annotation) is Annotated:
        inner, *extra = get_args(annotation)
        for item in extra:
            found.extend(item.metadata if isinstance(item, FieldInfo) else [item])
        annotation = inner
    return annotation, found


def branches(annotation: Any, metadata: Iterable[Any] = ()) -> list[tuple[Any, list[Any]]]:
    """The alternatives of a union, without None; one entry if it is no union."""
    annotation, found = unwrap(annotation, metadata)
    if get_origin(annotation) in (Union, types.UnionType):
        return [b for arg in get_args(annotation) if arg is not type(None) for b in branches(arg)]
    return [(annotation, found)]


def is_table(annotation: Any) -> bool:
    """Whether the type is a nested table of options."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def choices_of(annotation: Any) -> list[Any]:
    """The values of a `Literal` or an enumeration; nothing for other types."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [member.value for member in annotation]
    return []


def type_of(annotation: Any, metadata: Iterable[Any] = (), *, article: bool = False) -> str:
    """The type in words: `integer`, `list of numbers`, `integer or "auto"`; with an article for sentences."""
    parts = [_one_type(a, article) for a, _ in branches(annotation, metadata)]
    return " or ".join(dict.fromkeys(parts)) or "nothing"


def bounds_of(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """The bounds in words: `at least 0 and below 1`; empty if there are none."""
    found: list[str] = []
    for _, extra in branches(annotation, metadata):
        words = [
            f"{word} {number(getattr(item, name))}"
            for item in extra
            for name, word in (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most"))
            if getattr(item, name, None) is not None
        ]
        if words:
            found.append(" and ".join(words))
    return " or ".join(dict.fromkeys(found))


def number(value: Any) -> str:
    """A bound as one would write it: 1 rather than 1.0."""
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def value_in_words(value: Any) -> str:
    """A value of a profile with its type, for sentences: `the string "ten"`."""
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, int):
        text = str(value) if abs(value) < 10**30 else "of many digits"
        return f"the integer {text}"
    if isinstance(value, float):
        return f"the number {value!r}"
    if isinstance(value, str):
        short = value if len(value) <= 60 else value[:57] + "..."
        return f'the string "{short}"'
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, datetime.date | datetime.time):
        return f"the date {value.isoformat()}"
    return f"a value of type {type(value).__name__}"


def literal(value: Any) -> str:
    """A value as it stands in a profile, for short messages: `0`, `"ten"`."""
    if isinstance(value, str):
        return value_in_words(value).removeprefix("the string ")
    if isinstance(value, bool):
        return str(value).lower()
    return value_in_words(value).removeprefix("the integer ").removeprefix("the number ")


def _one_type(annotation: Any, article: bool) -> str:
    if choices := choices_of(annotation):
        listed = [literal(c) for c in choices]
        if not article or len(listed) == 1:
            return " or ".join(listed)
        return "one of " + ", ".join(listed)
    if is_table(annotation):
        text = f"table with {' and '.join(annotation.model_fields)}"
    elif get_origin(annotation) in (list, tuple) and get_args(annotation):
        entry = type_of(get_args(annotation)[0])
        text = f"list of {entry}s" if entry in _NOUNS.values() else f"list of {entry}"
    else:
        base = get_origin(annotation) or annotation
        text = next((noun for kind, noun in _NOUNS.items() if base is kind), getattr(base, "__name__", str(base)))
    if not article:
        return text
    return f"an {text}" if text[0] in "aeiou" else f"a {text}"
