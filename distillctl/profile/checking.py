"""Checks a table against a model of options and turns what pydantic finds into plain sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from distillctl.profile.describe import bounds_of, branches, choices_of, is_table, literal, number, type_of, unwrap, value_in_words
from distillctl.profile.locate import Key
from distillctl.profile.source import Source, dotted, nearest

M = TypeVar("M", bound=BaseModel)

_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}


def check_table(
    source: Source, model: type[M], values: Mapping[str, Any], key: Key, *, subject: str = "", command: str = "", also: Iterable[str] = ()
) -> M | None:
    """The values as an instance of the model; None, with every problem noted, if they do not fit.

    key: where the table stands. subject: whose options they are (method `mgd`); empty for the core's own tables.
    command: what lists all options. also: other keys that the table may have, for the nearest spelling.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        _Translator(source, subject, command, tuple(also)).table(model, values, key, error.errors(include_url=False))
        return None


class _Translator:
    def __init__(self, source: Source, subject: str, command: str, also: tuple[str, ...]) -> None:
        self.source = source
        self.subject = subject
        self.command = command
        self.also = also

    def table(self, model: type[BaseModel], values: Mapping[str, Any], key: Key, errors: Iterable[ErrorDetails]) -> None:
        told: set[str] = set()
        nested: dict[str, list[ErrorDetails]] = {}
        for error in errors:
            loc = error["loc"]
            if not loc:
                self.source.complain(f"{self._of(key)} is not valid: {_own_words(error)}", key)
                continue
            name = str(loc[0])
            field = model.model_fields.get(name)
            if error["type"] == "extra_forbidden" and len(loc) == 1:
                self._unknown(model, name, key)
            elif error["type"] == "missing" and len(loc) == 1:
                described = (field.description or "").split("\n")[0].rstrip(".") if field else ""
                self.source.complain(f"`{dotted((*key, name))}` is missing", (*key, name), described)
            elif field is not None:
                kinds = branches(field.annotation, field.metadata)
                tables = [a for a, _ in kinds if is_table(a)]
                value = values.get(name)
                if len(tables) == 1 and isinstance(value, Mapping):
                    tag = 1 if len(kinds) == 1 else 2
                    if len(kinds) == 1 or (len(loc) > 1 and loc[1] == tables[0].__name__):
                        nested.setdefault(name, []).append({**error, "loc": loc[tag:]})
                elif len(kinds) > 1:
                    if name not in told:
                        self._no_branch(field.annotation, field.metadata, value, (*key, name))
                elif name not in told or len(loc) > 1:
                    self._wrong(error, field.annotation, field.metadata, (*key, name), loc[1:])
                told.add(name)
        for name, below in nested.items():
            field = model.model_fields[name]
            inner = next(a for a, _ in branches(field.annotation, field.metadata) if is_table(a))
            _Translator(self.source, "", "", ()).table(inner, values[name], (*key, name), below)

    def _of(self, key: Key) -> str:
        return self.subject or f"[{dotted(key)}]"

    def _unknown(self, model: type[BaseModel], name: str, key: Key) -> None:
        allowed = [*model.model_fields, *self.also]
        near = nearest(name, allowed)
        if self.subject:
            message, all_of_them = (
                f"unknown option `{name}` for {self.subject}",
                f"{self.command} lists all options" if self.command else "",
            )
        else:
            message, all_of_them = f"unknown key `{name}` in [{dotted(key)}]", "allowed are " + ", ".join(f"`{a}`" for a in allowed)
        self.source.complain(message, (*key, name), " ".join(part for part in (near, all_of_them) if part))

    def _no_branch(self, annotation: Any, metadata: Iterable[Any], value: Any, key: Key) -> None:
        bounds = bounds_of(annotation, metadata)
        words = type_of(annotation, metadata, article=True) + (f" ({bounds})" if bounds else "")
        self.source.complain(f"`{dotted(key)}` must be {words}, not {value_in_words(value)}", key)

    def _wrong(self, error: ErrorDetails, annotation: Any, metadata: Iterable[Any], key: Key, inside: tuple[int | str, ...]) -> None:
        """One field, or one entry inside it, that has one type and does not fit it."""
        annotation, found = unwrap(annotation, metadata)
        for part in inside:
            arguments = getattr(annotation, "__args__", ())
            if not arguments:
                break
            annotation, found = unwrap(arguments[0 if isinstance(part, int) else -1])
            key = (*key, part)
        value, kind = error["input"], error["type"]
        subject = f"`{dotted(key)}`"
        if kind in _BOUNDS:
            word, name = _BOUNDS[kind]
            self.source.complain(f"{subject} must be {word} {number(error['ctx'][name])}, not {literal(value)}", key)
        elif choices := choices_of(annotation):
            listed = ", ".join(f"`{c}`" for c in choices)
            near = nearest(value, [str(c) for c in choices]) if isinstance(value, str) else ""
            self.source.complain(f"{subject} must be one of {listed}, not {literal(value)}", key, near)
        elif kind == "finite_number":
            self.source.complain(f"{subject} must be a finite number, not {literal(value)}", key)
        elif kind.endswith(("_type", "_parsing", "int_from_float")) or kind == "is_instance_of":
            self.source.complain(f"{subject} must be {type_of(annotation, found, article=True)}, not {value_in_words(value)}", key)
        else:
            self.source.complain(f"{subject} is not valid: {_own_words(error)}", key)


def _own_words(error: ErrorDetails) -> str:
    """What a validator says, without pydantic's preface."""
    text = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
