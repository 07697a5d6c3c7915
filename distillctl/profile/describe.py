"""Options in plain words: types and bounds for `show`, and what pydantic finds wrong with values, for error messages."""

from __future__ import annotations

import datetime
import types
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from distillctl.profile.document import dotted
from distillctl.profile.problems import nearest
from distillctl.profile.toml_file import Key

_ELSEWHERE = {
    **dict.fromkeys(("lr", "learning_rate", "base_lr"), "optimizer.lr"),
    **{name: f"optimizer.{name}" for name in ("momentum", "nesterov", "weight_decay")},
    **{name: f"train.{name}" for name in ("epochs", "batch_size", "workers", "precision", "label_smoothing", "clip_grad_norm", "ema")},
    **dict.fromkeys(("num_workers", "n_workers"), "train.workers"),
    **{name: f"schedule.{name}" for name in ("milestones", "gamma", "warmup", "min_lr")},
    **{name: f"dataset.{name}" for name in ("root", "image_size", "augment", "limit")},
    **dict.fromkeys(("data_dir", "data_path"), "dataset.root"),
    **{name: f"method.{name}" for name in ("temperature", "task_weight", "warmup_epochs")},
    "tta": "evaluate.tta",
}
"""Keys that people state in other tables than their own, or by names of other tools."""

Complaint = tuple[str, Key, str]
"""What is wrong, at which key, and a hint."""

_NOUNS = {int: "integer", float: "number", str: "string", bool: "boolean", Path: "path", dict: "table", list: "list", tuple: "list"}
_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}


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
    """The alternatives of a union, without None; one entry if it is not a union."""
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
            for word, name in _BOUNDS.values()
            if getattr(item, name, None) is not None
        ]
        if words:
            found.append(" and ".join(words))
    return " or ".join(dict.fromkeys(found))


def number(value: Any) -> str:
    """A bound as one would write it: 1 rather than 1.0, 1e9 rather than 1e+09."""
    short = f"{value:g}".replace("e+0", "e").replace("e+", "e") if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else str(value)


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


def complaints(
    errors: Iterable[ErrorDetails],
    model: type[BaseModel],
    values: Mapping[str, Any],
    key: Key,
    *,
    subject: str = "",
    command: str = "",
    also: Iterable[str] = (),
) -> Iterator[Complaint]:
    """What pydantic finds wrong with a table of options, each field once.

    key: where the table stands. subject: whose options they are (method `mgd`); empty for the core's own tables.
    command: what lists all options. also: other keys that the table may have, for the nearest spelling.
    """
    told: set[str] = set()
    nested: dict[str, tuple[type[BaseModel], list[ErrorDetails]]] = {}
    for error in errors:
        loc = error["loc"]
        if not loc:
            yield f"{subject or f'[{dotted(key)}]'} is not valid: {_own_words(error)}", key, ""
            continue
        name = str(loc[0])
        here = (*key, name)
        field = model.model_fields.get(name)
        if error["type"] == "extra_forbidden" and len(loc) == 1:
            yield _unknown(name, [*model.model_fields, *also], here, subject, command)
        elif error["type"] == "missing" and len(loc) == 1:
            described = (field.description or "").split("\n")[0].rstrip(".") if field else ""
            yield f"`{dotted(here)}` is missing", here, described
        elif field is not None:
            kinds = branches(field.annotation, field.metadata)
            tables = [a for a, _ in kinds if is_table(a)]
            value = values.get(name)
            if len(tables) == 1 and isinstance(value, Mapping):
                inside = 1 if len(kinds) == 1 else 2  # of a union, pydantic names the branch
                if inside == 1 or (len(loc) > 1 and loc[1] == tables[0].__name__):
                    nested.setdefault(name, (tables[0], []))[1].append({**error, "loc": loc[inside:]})
            elif len(kinds) > 1:
                if name not in told:
                    yield _fits_no_branch(field, value, here)
            elif name not in told or len(loc) > 1:
                yield _wrong(error, field, here, loc[1:])
            told.add(name)
    for name, (table, below) in nested.items():
        yield from complaints(below, table, values[name], (*key, name))


def _unknown(name: str, allowed: list[str], key: Key, subject: str, command: str) -> Complaint:
    if subject:
        message, listing = f"unknown option `{name}` for {subject}", f"{command} lists all options"
    else:
        message, listing = f"unknown key `{name}` in [{dotted(key[:-1])}]", "allowed are " + ", ".join(f"`{a}`" for a in allowed)
    there = _ELSEWHERE.get(name, "")
    near = f"it is `{there}`;" if there and there != dotted(key) else nearest(name, allowed)
    return message, key, f"{near} {listing}".lstrip()


def _fits_no_branch(field: FieldInfo, value: Any, key: Key) -> Complaint:
    bounds = bounds_of(field.annotation, field.metadata)
    words = type_of(field.annotation, field.metadata, article=True) + (f" ({bounds})" if bounds else "")
    return f"`{dotted(key)}` must be {words}, not {value_in_words(value)}", key, ""


def _wrong(error: ErrorDetails, field: FieldInfo, key: Key, inside: tuple[int | str, ...]) -> Complaint:
    """One field, or one entry inside it, that has one type and does not fit it."""
    annotation, found = unwrap(field.annotation, field.metadata)
    for part in inside:
        arguments = getattr(annotation, "__args__", ())
        if not arguments:
            break
        annotation, found = unwrap(arguments[0 if isinstance(part, int) else -1])
        key = (*key, part)
    value, kind, hint = error["input"], error["type"], ""
    if kind in _BOUNDS:
        word, name = _BOUNDS[kind]
        wrong = f"must be {word} {number(error['ctx'][name])}, not {literal(value)}"
    elif choices := choices_of(annotation):
        wrong = f"must be one of {', '.join(f'`{c}`' for c in choices)}, not {literal(value)}"
        hint = nearest(value, [str(c) for c in choices]) if isinstance(value, str) else ""
    elif kind == "finite_number":
        wrong = f"must be a finite number, not {literal(value)}"
    elif kind.endswith(("_type", "_parsing", "int_from_float")) or kind == "is_instance_of":
        wrong = f"must be {type_of(annotation, found, article=True)}, not {value_in_words(value)}"
    else:
        wrong = f"is not valid: {_own_words(error)}"
    return f"`{dotted(key)}` {wrong}", key, hint


def _own_words(error: ErrorDetails) -> str:
    """What a validator says, without pydantic's preface."""
    text = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
