"""What no single table decides: unknown tables, the seed, and whether there is a teacher where there must be one."""

from __future__ import annotations

from distillctl.api.options import Options
from distillctl.plugin.registry import Registry
from distillctl.profile.builder import Builder
from distillctl.profile.describe import literal, value_in_words
from distillctl.profile.method_tables import MethodTables
from distillctl.profile.schema import (
    DatasetTable,
    EvaluateTable,
    MethodTable,
    OptimizerTable,
    ScheduleTable,
    StudentTable,
    TeacherTable,
    TrackerTable,
    TrainTable,
)
from distillctl.profile.source import Source, nearest
from distillctl.profile.teacher_table import FOUR_WAYS

MAX_SEED = 2**32 - 1
_TABLES: dict[str, type[Options]] = {
    "dataset": DatasetTable, "student": StudentTable, "teacher": TeacherTable, "method": MethodTable, "optimizer": OptimizerTable,
    "schedule": ScheduleTable, "train": TrainTable, "evaluate": EvaluateTable,
    "tracker": TrackerTable,
}  # fmt: skip
_KEYS = ("seed", *_TABLES)


def check_top_level(source: Source) -> None:
    """Notes every top-level key that no profile has."""
    for key in source.data:
        if key in _KEYS:
            continue
        home = next((name for name, model in _TABLES.items() if key in model.model_fields and key != "name"), "")
        hint = f"`{key}` belongs in [{home}]" if home else nearest(key, _KEYS) or "allowed are " + ", ".join(f"`{k}`" for k in _KEYS)
        kind = "table" if isinstance(source.data[key], dict) else "key"
        source.complain(f"unknown {kind} `{key}`", (key,), hint)


def read_seed(builder: Builder) -> int:
    """`seed`."""
    source = builder.source
    value = source.data.get("seed", 0)
    builder.origins["seed"] = source.origin(("seed",)) if "seed" in source.data else "default"
    if isinstance(value, bool) or not isinstance(value, int):
        source.complain(f"`seed` must be an integer, not {value_in_words(value)}", ("seed",))
        return 0
    if not 0 <= value <= MAX_SEED:
        source.complain(f"`seed` must be between 0 and {MAX_SEED}, not {literal(value)}", ("seed",))
        return 0
    return value


def is_control(source: Source, registry: Registry) -> bool:
    """Whether the command line turned a profile with a teacher into a control that needs none."""
    method = source.data.get("method")
    name = method.get("name") if isinstance(method, dict) else None
    if not isinstance(name, str) or name not in registry.methods or registry.methods.get(name).needs_teacher:
        return False
    by_command_line = source.from_command_line(("method", "name"))
    return by_command_line and not any(isinstance(p, str) and k[0] == "teacher" for k, p in source.places.items())


def check_need_of_teacher(source: Source, methods: MethodTables, has_teacher: bool) -> None:
    """Notes a teacher that is missing, or that no method needs."""
    needing = next(((spec, key) for spec, key in methods.specs if spec.needs_teacher), None)
    if needing and "teacher" not in source.data:
        spec, key = needing
        source.complain(f"the method `{spec.name}` needs a [teacher]", (*key, "name"), FOUR_WAYS)
    elif has_teacher and not needing and methods.all_known:
        names = " and ".join(f"`{spec.name}`" for spec, _ in methods.specs)
        key = next((k for k, place in source.places.items() if k[0] == "teacher" and isinstance(place, str)), ("teacher",))
        source.complain(
            f"[teacher] has no effect with the method {names}", key, 'choose a method, for example `[method]` with `name = "kd"`'
        )
