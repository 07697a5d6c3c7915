"""`[teacher]`: whose weights, and by which of the four ways they are named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillctl.api.specs import ModelSpec
from distillctl.errors import Problem
from distillctl.profile.builder import Builder, split
from distillctl.profile.checking import check_table
from distillctl.profile.overrides import WAYS, Edit, flat_overrides, split_key
from distillctl.profile.parsing import read_start
from distillctl.profile.schema import TeacherChoice, TeacherTable
from distillctl.profile.source import near_files, nearest
from distillctl.profile.tables import Data, check_file, check_weights

FOUR_WAYS = (
    "[teacher] names its weights by exactly one of `run` (a run directory), `checkpoint` (a file), `weights` (a name that the model "
    "knows) or `profile` (another profile, trained first)"
)


MAX_MODEL_JSON = 1 << 24
"""Bytes of the largest `model.json` that is read; it names every class."""


@dataclass(frozen=True)
class OtherProfile:
    """What a teacher's profile is found to be: the name of its student, and its problems."""

    student: str
    problems: tuple[Problem, ...]


ReadOther = Callable[[Path, list[Edit]], OtherProfile]


@dataclass(frozen=True)
class TeacherResult:
    """`[teacher]` when it was read. name: the teacher's model where it is known, whatever else is wrong."""

    choice: TeacherChoice | None = None
    data: Data | None = None
    name: str = ""


def read_teacher(builder: Builder, read_other: ReadOther) -> TeacherResult:
    """Checks `[teacher]`; `read_other` reads the profile that `profile` names."""
    source = builder.source
    values = source.table("teacher")
    core, own = split(values, TeacherTable)
    table = check_table(source, TeacherTable, core, ("teacher",))
    name = core.get("name") if isinstance(core.get("name"), str) else ""
    if table is None:
        return TeacherResult(name=name or "")
    ways = [way for way in WAYS if getattr(table, way)]
    if len(ways) != 1:
        message = (
            "[teacher] does not say where its weights come from" if not ways else f"[teacher] has {' and '.join(f'`{w}`' for w in ways)}"
        )
        source.complain(message, ("teacher", ways[-1]) if ways else ("teacher",), FOUR_WAYS)
        return TeacherResult(name=table.name)
    way = ways[0]
    if way != "profile" and table.overrides:
        builder.no_effect(("teacher", "overrides"), f"with `teacher.{way}`: it changes the keys of a `profile`")
    if way in ("run", "profile"):
        return _known_by_other(builder, table, way, own, values, read_other)
    spec = builder.find(builder.registry.models, ("teacher", "name"), table.name) if table.name else None
    if not table.name:
        source.complain(
            f"`teacher.name` is missing: `{way}` does not say which model it is for", ("teacher", way), "`distillctl list-models` lists all"
        )
    options = builder.options(spec, "model", own, ("teacher",), TeacherTable) if spec else None
    if way == "weights" and spec:
        check_weights(builder, spec, table.weights, ("teacher", "weights"))
    if table.checkpoint:
        check_file(builder, table.checkpoint, ("teacher", "checkpoint"))
        table = table.model_copy(update={"checkpoint": table.checkpoint.absolute()})
    if spec is None or options is None:
        return TeacherResult(name=table.name)
    data = builder.record(("teacher",), [table, options], values)
    data["name"] = spec.qualified
    return TeacherResult(TeacherChoice(table, spec, options), data, spec.qualified)


def _known_by_other(
    builder: Builder, table: TeacherTable, way: str, own: Mapping[str, Any], values: Mapping[str, Any], read_other: ReadOther
) -> TeacherResult:
    """The ways `run` and `profile`, which know model and options already."""
    for key in (["name"] if table.name else []) + list(own):
        near = nearest(key, TeacherTable.model_fields) if key in own else ""
        builder.no_effect(("teacher", key), f"with `teacher.{way}`, which knows the model already", ("teacher", way), near)
    if way == "run":
        assert table.run is not None
        path = table.run.absolute()
        name = _model_of_run(builder, path, table.run)
    else:
        assert table.profile is not None
        here = Path() if builder.source.from_command_line(("teacher", "profile")) else builder.source.path.parent
        path = (here / table.profile).absolute()
        name = _student_of_profile(builder, path, table, read_other)
    table = table.model_copy(update={way: path, "name": ""})
    data = builder.record(("teacher",), [table], values)
    return TeacherResult(TeacherChoice(table, None, None), data, name)


def _model_of_run(builder: Builder, path: Path, given: Path) -> str:
    """The model of a run's student; empty where it cannot be told."""
    key = ("teacher", "run")
    try:
        if not builder.source.trusted and not (path / "model.json").is_file():
            if path.is_file():
                builder.source.complain(f"`{given}` is a file, not a run directory", key, "a file of weights is named by `checkpoint`")
            elif not path.is_dir():
                builder.source.complain(f"there is no run directory `{given}`", key, near_files(given))
            elif (path / "run.json").is_file():
                builder.source.complain(f"the run `{given}` is not finished", key, "its own `distillctl train` command continues it")
            else:
                builder.source.complain(f"`{given}` is not a run directory: it has no `run.json`", key)
            return ""
        info = json.loads(read_start(path / "model.json", MAX_MODEL_JSON))
        model = info.get("qualified", info.get("model", ""))
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""
    if not builder.source.trusted:
        builder.find(builder.registry.models, key, model)
    return model if isinstance(model, str) else ""


def _student_of_profile(builder: Builder, path: Path, table: TeacherTable, read_other: ReadOther) -> str:
    if builder.source.trusted:
        return ""
    key = ("teacher", "profile")
    try:
        there = path.is_file()
    except (OSError, ValueError):
        there = False
    if not there:
        message = f"`{path}` is a directory, not a profile" if path.is_dir() else f"there is no profile `{path}`"
        builder.source.complain(message, key, near_files(path, ".toml"))
        return ""
    other = read_other(path, _edits(builder, table.overrides))
    builder.source.problems.extend(p for p in other.problems if p not in builder.source.problems)
    return other.student


def _edits(builder: Builder, values: Mapping[str, Any]) -> list[Edit]:
    """`teacher.overrides` as edits."""
    edits: list[Edit] = []
    for name, value in flat_overrides(values).items():
        if (parts := split_key(name)) is None:
            builder.source.complain(f"`{name}` is no dotted key", ("teacher", "overrides", name))
        else:
            place = next((k for k in values if name == k or name.startswith(f"{k}.")), name)
            edits.append(Edit(parts, value, builder.source.where(("teacher", "overrides", place))))
    return edits


def model_name(builder: Builder, name: str) -> ModelSpec | None:
    """The spec of a model's name, if there is exactly one; notes no problem."""
    return builder.registry.models.get(name) if name in builder.registry.models else None
