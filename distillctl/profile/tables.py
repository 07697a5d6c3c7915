"""The tables that stand for themselves: `[dataset]`, `[student]`, `[optimizer]`, `[schedule]`, `[train]`, `[evaluate]`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from distillctl.api.options import Options
from distillctl.api.specs import ModelSpec
from distillctl.profile.builder import Builder, split
from distillctl.profile.checking import check_table
from distillctl.profile.locate import Key
from distillctl.profile.schema import (
    DatasetChoice,
    DatasetTable,
    EvaluateTable,
    OptimizerChoice,
    OptimizerTable,
    ScheduleTable,
    StudentChoice,
    StudentTable,
    TrackerChoice,
    TrackerTable,
    TrainTable,
)
from distillctl.profile.source import near_files, nearest

O = TypeVar("O", bound=Options)  # noqa: E741
Data = dict[str, Any]

MAX_TRACKERS = 32
"""[[tracker]] tables of one profile."""

_EXAMPLES = {
    "dataset": '[dataset] needs `name = "…"`; `distillctl list-datasets` lists all',
    "student": '[student] needs `name = "…"`; `distillctl list-models` lists all',
    "train": "[train] needs `epochs = …`",
}


def read_dataset(builder: Builder) -> tuple[DatasetChoice | None, Data]:
    """`[dataset]`."""
    values = _required(builder, "dataset")
    if values is None:
        return None, {}
    core, own = split(values, DatasetTable)
    table = check_table(builder.source, DatasetTable, core, ("dataset",))
    spec = builder.find(builder.registry.datasets, ("dataset", "name"), core.get("name"))
    options = builder.options(spec, "data set", own, ("dataset",), DatasetTable) if spec else None
    if table is None or spec is None or options is None:
        return None, {}
    data = builder.record(("dataset",), [table, options], values)
    data["name"] = spec.qualified
    return DatasetChoice(spec, table, options), data


def read_student(builder: Builder) -> tuple[StudentChoice | None, Data, ModelSpec | None]:
    """`[student]`, and the spec even if other keys are wrong."""
    values = _required(builder, "student")
    if values is None:
        return None, {}, None
    core, own = split(values, StudentTable)
    table = check_table(builder.source, StudentTable, core, ("student",))
    spec = builder.find(builder.registry.models, ("student", "name"), core.get("name"))
    options = builder.options(spec, "model", own, ("student",), StudentTable) if spec else None
    if table and table.weights and table.checkpoint:
        builder.source.complain("`student.weights` and `student.checkpoint` cannot both be given", ("student", "checkpoint"))
    if table and table.weights and spec:
        check_weights(builder, spec, table.weights, ("student", "weights"))
    if table and table.checkpoint:
        check_file(builder, table.checkpoint, ("student", "checkpoint"))
        table = table.model_copy(update={"checkpoint": table.checkpoint.absolute()})
    if table is None or spec is None or options is None:
        return None, {}, spec
    data = builder.record(("student",), [table, options], values)
    data["name"] = spec.qualified
    return StudentChoice(spec, table, options), data, spec


def read_optimizer(builder: Builder) -> tuple[OptimizerChoice | None, Data]:
    """`[optimizer]`."""
    values = builder.source.table("optimizer")
    core, own = split(values, OptimizerTable)
    table = check_table(builder.source, OptimizerTable, core, ("optimizer",))
    spec = builder.find(builder.registry.optimizers, ("optimizer", "name"), core.get("name", "sgd"))
    options = builder.options(spec, "optimizer", own, ("optimizer",), OptimizerTable) if spec else None
    if table is None or spec is None or options is None:
        return None, {}
    data = builder.record(("optimizer",), [table, options], values)
    data["name"] = spec.qualified
    return OptimizerChoice(spec, table, options), data


def read_trackers(builder: Builder) -> tuple[tuple[TrackerChoice, ...], list[Data]]:
    """`[[tracker]]`, any number of them."""
    source, value = builder.source, builder.source.data.get("tracker", [])
    tables = [value] if isinstance(value, dict) else value
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        hint = f'write `[[tracker]]` and below it `name = "{value}"`' if isinstance(value, str) else ""
        source.complain("`tracker` must be a table, [tracker], or several, [[tracker]]", ("tracker",), hint)
        return (), []
    if len(tables) > MAX_TRACKERS:
        source.complain(f"there are {len(tables)} [[tracker]] tables, more than {MAX_TRACKERS}", ("tracker", MAX_TRACKERS))
        return (), []
    choices, data = [], []
    for number, values in enumerate(tables):
        key: Key = ("tracker",) if tables is not value else ("tracker", number)
        core, own = split(values, TrackerTable)
        table = check_table(source, TrackerTable, core, key)
        spec = builder.find(builder.registry.trackers, (*key, "name"), core.get("name"))
        options = builder.options(spec, "tracker", own, key, TrackerTable) if spec else None
        if table is not None and spec is not None and options is not None:
            choices.append(TrackerChoice(spec, options))
            data.append({**builder.record(key, [table, options], values), "name": spec.qualified})
    return tuple(choices), data


def read_schedule(builder: Builder) -> tuple[ScheduleTable | None, Data]:
    """`[schedule]`."""
    table, data = _core_table(builder, "schedule", ScheduleTable)
    if table and table.name == "step" and not table.milestones:
        builder.source.complain(
            '`schedule.milestones` is missing: `name = "step"` needs shares of the run',
            ("schedule", "name"),
            "for example [0.625, 0.75, 0.875]",
        )
    return table, data


def read_train(builder: Builder) -> tuple[TrainTable | None, Data]:
    """`[train]`."""
    return (None, {}) if _required(builder, "train") is None else _core_table(builder, "train", TrainTable)


def read_evaluate(builder: Builder) -> tuple[EvaluateTable | None, Data]:
    """`[evaluate]`."""
    return _core_table(builder, "evaluate", EvaluateTable)


def check_weights(builder: Builder, spec: ModelSpec, name: str, key: tuple[str, ...]) -> None:
    """Notes a problem if the model does not know pretrained weights of this name."""
    if spec.weights and name not in spec.weights:
        listed = "there are " + ", ".join(f"`{w}`" for w in spec.weights)
        hint = " ".join(part for part in (nearest(name, spec.weights), listed) if part)
        builder.source.complain(f"model `{spec.name}` knows no weights called `{name}`", key, hint)
    elif not spec.weights and not spec.weights_loader:
        builder.source.complain(f"model `{spec.name}` has no pretrained weights", key, "name a file by `checkpoint`")


def check_file(builder: Builder, path: Path, key: tuple[str, ...]) -> None:
    """Notes a problem if there is no such file."""
    if builder.source.trusted:
        return
    try:
        if path.is_file():
            return
        message = f"`{path}` is a directory, not a file" if path.is_dir() else f"there is no file `{path}`"
        hint = "a run directory is named by `run`" if path.is_dir() and key[0] == "teacher" else near_files(path)
    except (OSError, ValueError):
        message, hint = f"`{path}` is not a path", ""
    builder.source.complain(message, key, hint)


def _required(builder: Builder, name: str) -> Data | None:
    if name not in builder.source.data:
        builder.source.complain(f"the table [{name}] is missing", (), _EXAMPLES[name])
        return None
    return builder.source.table(name) if isinstance(builder.source.data[name], dict) else builder.source.table(name) or None


def _core_table(builder: Builder, name: str, model: type[O]) -> tuple[O | None, Data]:
    values = builder.source.table(name)
    table = check_table(builder.source, model, values, (name,))
    if table is None:
        return None, {}
    stated = dict(values)
    for key, why, because in _ineffective(table):
        default = model.model_fields[key].get_default()
        if key in stated and getattr(table, key) != default:
            builder.no_effect((name, key), why, (name, because))
            table = table.model_copy(update={key: default})
            del stated[key]
    return table, builder.record((name,), [table], stated)


def _ineffective(table: BaseModel) -> Iterator[tuple[str, str, str]]:
    """Keys that do nothing beside the other values of their table: key, why, and the key that decides it."""
    if isinstance(table, ScheduleTable):
        if table.name != "step":
            yield "milestones", 'without `schedule.name = "step"`', "name"
            yield "gamma", 'without `schedule.name = "step"`', "name"
        if table.name != "cosine":
            yield "min_lr", 'without `schedule.name = "cosine"`', "name"
        if table.warmup == 0:
            yield "warmup_lr", "without `schedule.warmup`", "warmup"
    elif isinstance(table, TrainTable) and table.ema == 0:
        yield "ema_ramp", "without `train.ema`", "ema"
    elif isinstance(table, EvaluateTable) and table.tta == "flip":
        yield "tta_resize", 'with `evaluate.tta = "flip"`', "tta"
