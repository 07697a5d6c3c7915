"""From `[published]` of a document, and from the options of a command line, to what `profile.published` compares."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from distillctl.errors import ProfileError
from distillctl.profile.checking import Check
from distillctl.profile.describe import literal
from distillctl.profile.document import parse_edit
from distillctl.profile.problems import nearest
from distillctl.profile.published import Asked, Figure, FigureTable, Published, PublishedTable
from distillctl.profile.toml_file import Key

_FREE = {("dataset", "root"), ("dataset", "download"), ("dataset", "cache"), ("train", "workers"), ("train", "save_every")}
"""Keys that say where and how, and not what: a recipe is the same with others."""


def asked(method: str | None, teacher: str | None, overrides: Sequence[str], above: Path = Path()) -> Asked:
    """What options mean. above: from where paths count.

    Raises:
        ProfileError: an override has another form than `KEY=VALUE`.
    """
    edits = [parse_edit(text) for text in overrides]
    values = {(edit.parts, repr(edit.value)) for edit in edits if edit.parts[0] != "tracker" and edit.parts[-2:] not in _FREE}
    return Asked(method, None if teacher is None else str((above / teacher).resolve()), frozenset(values))


def read_published(check: Check, figures: Collection[str]) -> Published:
    """`[published]`, with a problem noted for whatever is wrong.

    figures: names that the task has; empty where it does not say.
    """
    values = check.stated("published")
    if not values:
        return Published()
    known = PublishedTable.model_fields
    name, value = _figure(check, values, ("published",), known, figures, required=False)
    table = check.table(PublishedTable, {key: item for key, item in values.items() if key in known}, ("published",))
    if table is None:
        return Published()
    if not table.source:
        check.complain("`published.source` is missing: where were the figures published?", ("published",))
    base = FigureTable(**{key: getattr(table, key) for key in FigureTable.model_fields})
    found = {} if value is None else {Asked(): Figure(name, value, base)}
    for method, row in table.methods.items():
        _add(check, found, Asked(method), row, ("published", "methods", method), base, name, figures)
    for text, row in table.options.items():
        key = ("published", "options", text)
        if (what := _options(check, text, key)) is not None:
            _add(check, found, what, row, key, base, name, figures)
    if not values.keys() - {"source"}:
        check.complain("[published] states no figure", ("published",), f"such as `{next(iter(figures), 'top1')} = 73.33`")
    return Published(found, table.teacher)


def _add(
    check: Check, found: dict[Asked, Figure], what: Asked, row: Any, key: Key, base: FigureTable, name: str, figures: Collection[str]
) -> None:
    """One more figure: a number of the same name and source, or a table that says more."""
    if what in found:
        check.complain(f"`{key[-1]}` is stated twice", key)
        return
    metric = name or next(iter(figures), "")
    stated = row if isinstance(row, dict) else {metric: row}
    own, value = _figure(check, stated, key, FigureTable.model_fields, figures, default=metric)
    table = check.table(FigureTable, {k: v for k, v in stated.items() if k in FigureTable.model_fields}, key)
    if value is not None and table is not None:
        inherited = {"source": base.source, "epoch": base.epoch, "split": base.split, "band": base.band}
        found[what] = Figure(own, value, table.model_copy(update={k: v for k, v in inherited.items() if k not in table.model_fields_set}))


def _figure(
    check: Check,
    values: Mapping[str, Any],
    key: Key,
    keys: Collection[str],
    figures: Collection[str],
    default: str = "",
    *,
    required: bool = True,
) -> tuple[str, float | None]:
    """The one key that is no other's, and its value; None with a problem noted."""
    names = [name for name in values if name not in keys]
    for name in names:
        if figures and name not in figures:
            hint = nearest(name, [*figures, *keys]) or "there are " + ", ".join(f"`{n}`" for n in figures)
            check.complain(f"`{name}` is neither a figure of this task nor a key of [published]", (*key, name), hint)
    if len(names) > 1:
        check.complain(f"[published] states one figure, not {len(names)}: {', '.join(f'`{n}`' for n in names)}", (*key, names[1]))
    if not names:
        if required:
            check.complain(f"`{key[-1]}` states no figure", key, f"such as `{default or 'top1'} = 73.33`")
        return default, None
    value = values[names[0]]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        check.complain(f"the published `{names[0]}` must be a number, not {literal(value)}", (*key, names[0]))
        return names[0], None
    return names[0], float(value)


def _options(check: Check, text: str, key: Key) -> Asked | None:
    """Options as they are typed; None, with a problem noted, if they are others."""
    try:
        words = shlex.split(text)
        pairs = list(zip(words[::2], words[1::2], strict=True))
        method = next((value for flag, value in pairs if flag == "--method"), None)
        teacher = next((value for flag, value in pairs if flag == "--teacher"), None)
        sets = [value for flag, value in pairs if flag == "--set"]
        if len(sets) + (method is not None) + (teacher is not None) == len(pairs):
            return asked(method, teacher, sets, check.document.path.parent)
    except (ValueError, ProfileError):
        pass
    check.complain(f"`{text[:80]}` is not a list of `--method NAME`, `--teacher FILE` and `--set KEY=VALUE`", key)
    return None
