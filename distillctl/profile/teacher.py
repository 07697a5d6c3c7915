"""`[teacher]` and `[[teacher]]`: whose weights, by which of the four ways they are named, and whether there must be a teacher at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillctl.api.specs import ModelSpec
from distillctl.profile.checking import Check, Data, option_names, split
from distillctl.profile.document import Edit, dotted, flat_overrides, split_key
from distillctl.profile.methods import Methods
from distillctl.profile.problems import near_files, nearest
from distillctl.profile.schema import WAYS, TeacherChoice, TeacherTable
from distillctl.profile.tables import with_known_files
from distillctl.profile.toml_file import Key, read_start

FOUR_WAYS = (
    "[teacher] names its weights by exactly one of `run` (a run directory), `checkpoint` (a file), `weights` (a name that the model "
    "knows) or `profile` (another profile, trained first)"
)

MAX_TEACHERS = 8
"""[[teacher]] tables of one profile."""

MAX_MODEL_JSON = 1 << 24
"""Bytes of the largest `model.json` that is read; it names every class."""

StudentOf = Callable[[Path, list[Edit]], str]
"""Checks another profile, with keys of it replaced; gives the name of its student, empty where it cannot be told."""


@dataclass(frozen=True)
class Teachers:
    """The tables of teachers when they were read.

    choices: complete if no problem was noted. names: of the models where they are known, whatever else is wrong, otherwise empty.
    """

    choices: tuple[TeacherChoice, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Teacher:
    choice: TeacherChoice | None = None
    name: str = ""


def read_teachers(check: Check, student_of: StudentOf) -> Teachers:
    """Checks `[teacher]`, or several `[[teacher]]`; `student_of` reads the profile that `profile` names."""
    tables = check.several("teacher", "[teacher]", MAX_TEACHERS)
    if tables is not None and not tables:
        check.complain("`teacher` has no table", ("teacher",), FOUR_WAYS)
    found = [_read_teacher(check, key, values, student_of) for key, values in tables or ()]
    return Teachers(tuple(one.choice for one in found if one.choice is not None), tuple(one.name for one in found))


def _read_teacher(check: Check, key: Key, values: Mapping[str, Any], student_of: StudentOf) -> _Teacher:
    core, own = split(values, TeacherTable)
    table = check.table(TeacherTable, core, key)
    if table is None:
        name = core.get("name")
        return _Teacher(name=name if isinstance(name, str) else "")
    ways = [way for way in WAYS if getattr(table, way)]
    if len(ways) != 1:
        found = f"has {' and '.join(f'`{w}`' for w in ways)}" if ways else "does not say where its weights come from"
        check.complain(f"[teacher] {found}", (*key, *ways[-1:]), FOUR_WAYS)
        return _Teacher(name=table.name)
    way = ways[0]
    if way != "profile" and table.overrides:
        check.no_effect((*key, "overrides"), f"with `{dotted(key)}.{way}`: it changes the keys of a `profile`")
    if way in ("run", "profile"):
        return _known_by_other(check, key, table, way, own, values, student_of)
    choice = by_weights(check, key, table, own, values)
    return _Teacher(choice, table.name if choice is None or choice.spec is None else choice.spec.qualified)


def _resolve(check: Check, key: Key, data: Data) -> None:
    """Puts a table among the resolved ones: by its name, or at the end of several."""
    if len(key) > 1:
        check.resolved.setdefault(str(key[0]), []).append(data)
    else:
        check.resolved[str(key[0])] = data


def by_weights(check: Check, key: Key, table: TeacherTable, own: Data, values: Mapping[str, Any]) -> TeacherChoice | None:
    """Checks a network whose table states its model and, by `checkpoint` or `weights`, which weights it has; None with problems noted.

    key: where the table stands. own: its keys that are options of the model. values: all that it states.
    """
    spec = check.find(check.registry.models, (*key, "name"), table.name) if table.name else None
    if not table.name:
        way = next(way for way in WAYS if getattr(table, way))
        message = f"`{dotted(key)}.name` is missing: `{way}` does not say which model it is for"
        check.complain(message, (*key, way), "`distillctl list-models` lists all")
    known = {} if spec is None or check.trusted else _input_of_weights(table, spec)
    table = table.model_copy(update=known)
    own = own | ({} if spec is None or table.image_size is None or not has_fixed_size(spec) else {"image_size": table.image_size})
    options = check.options(spec, "model", own, key, TeacherTable) if spec else None
    table = with_known_files(check, table, spec, key)
    if spec is None or options is None:
        return None
    if spec.weights_file and getattr(options, spec.weights_file):
        check.no_effect((*key, spec.weights_file), f"on a {key[0]}, whose weights are all known: a student starts from it")
    if has_fixed_size(spec):
        table = table.model_copy(update={"image_size": getattr(options, "image_size", None)})
    presets = {name: (value, table.weights or spec.name) for name, value in known.items()}
    _resolve(check, key, check.record(key, [table, options], values, spec, presets=presets))
    return TeacherChoice(table, spec.ending_after(getattr(options, "stages", None)), options, dotted(key))


def has_fixed_size(spec: ModelSpec) -> bool:
    """Whether the model works at one size alone, an option of its own."""
    return "image_size" in (option_names(spec) or ())


def _input_of_weights(table: TeacherTable, spec: ModelSpec) -> Data:
    """What the weights were made to see, where the profile does not say it: a size only of a model that works at one alone."""
    seen = spec.weights_input.get(table.weights)
    if seen is None:
        return {}
    known: Data = {"mean": list(seen.mean), "std": list(seen.std)}
    if seen.size and has_fixed_size(spec):
        known["image_size"] = seen.size
    return {name: value for name, value in known.items() if getattr(table, name) is None}


def input_of_run(path: Path) -> Mapping[str, Any]:
    """What a run's `model.json` says of the images that its student sees; empty where it says nothing."""
    try:
        told = json.loads(read_start(path / "model.json", MAX_MODEL_JSON))["input"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _known_by_other(
    check: Check, key: Key, table: TeacherTable, way: str, own: Data, values: Mapping[str, Any], student_of: StudentOf
) -> _Teacher:
    """The ways `run` and `profile`, which know model and options already."""
    for idle in [name for name in ("name", "key") if getattr(table, name)] + list(own):
        near = nearest(idle, TeacherTable.model_fields) if idle in own else ""
        check.no_effect((*key, idle), f"with `{dotted(key)}.{way}`, which knows the model already", (*key, way), near)
    given: Path = getattr(table, way)
    beside = way == "profile" and not check.document.from_command_line((*key, "profile"))
    path = (check.document.path.parent / given if beside else given).absolute()
    of_run = way == "run"
    name = _model_of_run(check, path, given, (*key, way)) if of_run else _model_of_profile(check, path, table.overrides, student_of, key)
    table = table.model_copy(update={way: path, "name": ""})
    _resolve(check, key, check.record(key, [table], values))
    return _Teacher(TeacherChoice(table, None, None, dotted(key)), name)


def _model_of_run(check: Check, path: Path, given: Path, key: Key) -> str:
    """The model of a run's student; empty where it cannot be told. key: where the run is named."""
    try:
        if not check.trusted and not (path / "model.json").is_file():
            if path.is_file():
                check.complain(f"`{given}` is a file, not a run directory", key, "a file of weights is named by `checkpoint`")
            elif path.exists() and not path.is_dir():
                check.complain(f"`{given}` is a pipe or device, not a run directory", key)
            elif not path.is_dir():
                check.complain(f"there is no run directory `{given}`", key, near_files(given))
            elif (path / "run.json").is_file():
                check.complain(f"the run `{given}` is not finished", key, "its own `distillctl train` command continues it")
            else:
                check.complain(f"`{given}` is not a run directory: it has no `run.json`", key)
            return ""
        info = json.loads(read_start(path / "model.json", MAX_MODEL_JSON))
        model = info.get("qualified", info.get("model", ""))
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""
    if not check.trusted:
        check.find(check.registry.models, key, model)
    return model if isinstance(model, str) else ""


def _model_of_profile(check: Check, path: Path, overrides: Mapping[str, Any], student_of: StudentOf, key: Key) -> str:
    """The student of a profile; empty where it cannot be told. key: the teacher's table."""
    if check.trusted:
        return ""
    try:
        there = path.is_file()
    except (OSError, ValueError):
        there = False
    if not there:
        message = f"`{path}` is a directory, not a profile" if path.is_dir() else f"there is no profile `{path}`"
        check.complain(message, (*key, "profile"), near_files(path, ".toml"))
        return ""
    return student_of(path, _edits(check, overrides, key))


def _edits(check: Check, values: Mapping[str, Any], key: Key) -> list[Edit]:
    """`teacher.overrides` as edits."""
    edits: list[Edit] = []
    for name, value in flat_overrides(values).items():
        if (parts := split_key(name)) is None:
            check.complain(f"`{name}` is no dotted key", (*key, "overrides", name))
        else:
            place = next((k for k in values if name == k or name.startswith(f"{k}.")), name)
            edits.append(Edit(parts, value, check.document.where((*key, "overrides", place))))
    return edits


def is_control(check: Check) -> bool:
    """Whether the command line turned a profile with a teacher into a control that needs none."""
    name, methods = check.document.get(("method", "name")), check.registry.methods
    if not isinstance(name, str) or name not in methods or methods.get(name).needs_teacher:
        return False
    return check.document.from_command_line(("method", "name")) and not check.document.first_from_command_line("teacher")


def check_need_of_teacher(check: Check, methods: Methods, has_teacher: bool) -> None:
    """Notes a teacher that is missing, or that no method needs."""
    needing = next(((spec, key) for spec, key in methods.specs if spec.needs_teacher), None)
    if needing and "teacher" not in check.document.data:
        spec, key = needing
        check.complain(f"the method `{spec.name}` needs a [teacher]", (*key, "name"), FOUR_WAYS)
    elif has_teacher and not needing and methods.all_known:
        names = " and ".join(f"`{spec.name}`" for spec, _ in methods.specs)
        key = check.document.first_from_command_line("teacher") or ("teacher",)
        hint = 'choose a method, for example `[method]` with `name = "kd"`'
        check.complain(f"[teacher] has no effect with the method {names}", key, hint)
