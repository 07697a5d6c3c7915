"""The tables that stand for themselves, the seed, and whatever else stands at the top of a profile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from distillctl.api.options import Options
from distillctl.api.specs import ModelSpec
from distillctl.profile.checking import Check
from distillctl.profile.describe import literal, value_in_words
from distillctl.profile.problems import nearest, no_file
from distillctl.profile.schema import (
    MAX_SEED,
    DatasetChoice,
    DatasetTable,
    EvaluateTable,
    MethodTable,
    OptimizerChoice,
    OptimizerTable,
    ScheduleTable,
    StudentChoice,
    StudentTable,
    SweepTable,
    TeacherTable,
    TrackerChoice,
    TrackerTable,
    TrainTable,
)
from distillctl.profile.toml_file import Key

O = TypeVar("O", bound=Options)  # noqa: E741
T = TypeVar("T", StudentTable, TeacherTable)

MAX_TRACKERS = 32
"""[[tracker]] tables of one profile."""

_TABLES: dict[str, type[Options]] = {
    "dataset": DatasetTable, "student": StudentTable, "teacher": TeacherTable, "method": MethodTable, "optimizer": OptimizerTable,
    "schedule": ScheduleTable, "train": TrainTable, "evaluate": EvaluateTable, "tracker": TrackerTable, "sweep": SweepTable,
}  # fmt: skip
_KEYS = ("seed", *_TABLES, "published")
_EXAMPLES = {
    "dataset": '[dataset] needs `name = "…"`; `distillctl list-datasets` lists all',
    "student": '[student] needs `name = "…"`; `distillctl list-models` lists all',
    "train": "[train] needs `epochs = …`",
}


def check_top_level(check: Check) -> None:
    """Notes every top-level key that no profile has."""
    for key, value in check.document.data.items():
        if key in _KEYS:
            continue
        home = next((name for name, model in _TABLES.items() if key in model.model_fields and key != "name"), "")
        hint = f"`{key}` belongs in [{home}]" if home else nearest(key, _KEYS) or "allowed are " + ", ".join(f"`{k}`" for k in _KEYS)
        check.complain(f"unknown {'table' if isinstance(value, dict) else 'key'} `{key}`", (key,), hint)


def read_seed(check: Check) -> int:
    """`seed`."""
    check.resolved["seed"] = value = check.document.data.get("seed", 0)
    check.origins["seed"] = check.document.origin(("seed",)) if "seed" in check.document.data else "default"
    if isinstance(value, bool) or not isinstance(value, int):
        check.complain(f"`seed` must be an integer, not {value_in_words(value)}", ("seed",))
        return 0
    if not 0 <= value <= MAX_SEED:
        check.complain(f"`seed` must be between 0 and {MAX_SEED}, not {literal(value)}", ("seed",))
        return 0
    return value


def read_dataset(check: Check) -> DatasetChoice | None:
    """`[dataset]`."""
    values = check.stated("dataset", _EXAMPLES["dataset"])
    if values is None:
        return None
    table, spec, options = check.plugin_table(check.registry.datasets, DatasetTable, values, ("dataset",))
    if table is None or spec is None or options is None:
        return None
    check.resolved["dataset"] = check.record(("dataset",), [table, options], values, spec)
    return DatasetChoice(spec, table, options)


def read_student(check: Check) -> tuple[StudentChoice | None, ModelSpec | None]:
    """`[student]`, and the spec even if other keys are wrong."""
    values = check.stated("student", _EXAMPLES["student"])
    if values is None:
        return None, None
    table, spec, options = check.plugin_table(check.registry.models, StudentTable, values, ("student",))
    if table and table.weights and table.checkpoint:
        check.complain("`student.weights` and `student.checkpoint` cannot both be given", ("student", "checkpoint"))
    if spec and spec.own_file:
        check.complain(f"the model `{spec.name}` runs a file of its own and cannot be trained", ("student", "name"), "it can teach")
    if table:
        table = with_known_files(check, table, spec, ("student",))
        if table.freeze and spec:
            _check_freeze(check, table, spec.ending_after(getattr(options, "stages", None)))
    if table is None or spec is None or options is None:
        return None, spec
    if spec.weights_file and (path := getattr(options, spec.weights_file)):
        key = ("student", spec.weights_file)
        if way := "weights" if table.weights else "checkpoint" if table.checkpoint else "":
            check.no_effect(key, f"beside `student.{way}`, which has all of the model")
        elif not check.trusted:
            _check_file(check, path, key)
    check.resolved["student"] = check.record(("student",), [table, options], values, spec)
    return StudentChoice(spec.ending_after(getattr(options, "stages", None)), table, options), spec


def _check_freeze(check: Check, table: StudentTable, spec: ModelSpec) -> None:
    key, stages = ("student", "freeze"), [name for name in spec.stages if name != "final" and ":" not in name]
    if not (table.weights or table.checkpoint):
        check.complain("`student.freeze` would keep random weights", key, "name those to keep by `weights` or `checkpoint`")
    if table.freeze not in stages:
        what = f"no stage `{table.freeze}`" if stages else "no stages that could be frozen"
        hint = f"there are {', '.join(f'`{name}`' for name in stages)}" if stages else "leave `freeze` out"
        check.complain(f"the model `{spec.name}` declares {what}", key, hint)


def check_rates(check: Check, optimizer: OptimizerChoice | None, spec: ModelSpec | None) -> None:
    """Notes rates by depth for a student that does not declare what is deep."""
    if optimizer is None or spec is None:
        return
    for name, there, what in (("head_lr_scale", spec.classifier, "classifier"), ("layer_decay", spec.stages, "stages")):
        if getattr(optimizer.table, name) is not None and not there:
            check.complain(
                f"`optimizer.{name}` does not work with the student `{spec.name}`, which declares no {what}",
                ("optimizer", name),
                "leave it out",
            )


def read_optimizer(check: Check) -> OptimizerChoice | None:
    """`[optimizer]`."""
    values = check.stated("optimizer")
    if values is None:
        return None
    table, spec, options = check.plugin_table(check.registry.optimizers, OptimizerTable, values, ("optimizer",))
    if table is None or spec is None or options is None:
        return None
    check.resolved["optimizer"] = check.record(("optimizer",), [table, options], values, spec)
    return OptimizerChoice(spec, table, options)


def read_schedule(check: Check) -> ScheduleTable | None:
    """`[schedule]`."""
    table = read_core_table(check, "schedule", ScheduleTable)
    if table and table.name == "step" and not table.milestones:
        message = '`schedule.milestones` is missing: `name = "step"` needs shares of the run'
        check.complain(message, ("schedule", "name"), "for example [0.625, 0.75, 0.875]")
    return table


def read_core_table(check: Check, name: str, model: type[O]) -> O | None:
    """`[train]`, `[schedule]` or `[evaluate]`, which no plugin adds to."""
    values = check.stated(name, _EXAMPLES.get(name, ""))
    table = None if values is None else check.table(model, values, (name,))
    if values is None or table is None:
        return None
    stated = dict(values)
    for key, why, because in _ineffective(table):
        default = model.model_fields[key].get_default()
        if key in stated and getattr(table, key) != default:
            check.no_effect((name, key), why, (name, because))
            table = table.model_copy(update={key: default})
            del stated[key]
    check.resolved[name] = check.record((name,), [table], stated)
    return table


def read_trackers(check: Check) -> tuple[TrackerChoice, ...]:
    """`[[tracker]]`, any number of them."""
    choices, data = [], []
    for key, values in check.several("tracker", "[[tracker]]", MAX_TRACKERS) or ():
        table, spec, options = check.plugin_table(check.registry.trackers, TrackerTable, values, key)
        if table is not None and spec is not None and options is not None:
            choices.append(TrackerChoice(spec, options))
            data.append(check.record(key, [table, options], values, spec))
    if data:
        check.resolved["tracker"] = data
    return tuple(choices)


def read_sweep(check: Check) -> SweepTable | None:
    """`[sweep]`, which is not part of what a run is: nothing of it is resolved."""
    values = check.stated("sweep")
    return None if values is None else check.table(SweepTable, values, ("sweep",))


def with_known_files(check: Check, table: T, spec: ModelSpec | None, key: Key) -> T:
    """The table with an absolute path of its checkpoint; notes weights that the model does not know, and a file that is not there."""
    if table.weights and spec:
        _check_weights(check, spec, table.weights, (*key, "weights"))
    if table.key and not table.checkpoint:
        check.no_effect((*key, "key"), "without `checkpoint`: it says where in that file the weights are")
    if not table.checkpoint:
        return table
    if not check.trusted:
        _check_file(check, table.checkpoint, (*key, "checkpoint"))
    return table.model_copy(update={"checkpoint": table.checkpoint.absolute()})


def _check_weights(check: Check, spec: ModelSpec, name: str, key: Key) -> None:
    if spec.weights and name not in spec.weights:
        listed = "there are " + ", ".join(f"`{w}`" for w in spec.weights)
        check.complain(f"model `{spec.name}` knows no weights called `{name}`", key, f"{nearest(name, spec.weights)} {listed}".lstrip())
    elif not spec.weights and not spec.weights_loader:
        check.complain(f"model `{spec.name}` has no pretrained weights", key, "name a file by `checkpoint`")


def _check_file(check: Check, path: Path, key: Key) -> None:
    try:
        if path.is_file():
            return
        run = path.is_dir() and key[0] == "teacher"
    except (OSError, ValueError):
        run = False
    message, hint = no_file(path)
    check.complain(message, key, "a run directory is named by `run`" if run else hint)


def _ineffective(table: BaseModel) -> Iterator[tuple[str, str, str]]:
    """Keys that do nothing beside the other values of their table: key, why, and the key that decides it."""
    if isinstance(table, ScheduleTable):
        if table.name != "step":
            yield "milestones", 'without `schedule.name = "step"`', "name"
            yield "gamma", 'without `schedule.name = "step"`', "name"
        if table.name != "cosine":
            yield "min_lr", 'without `schedule.name = "cosine"`', "name"
            yield "cycles", 'without `schedule.name = "cosine"`', "name"
        if table.cycles is None:
            yield "cycle", "without `schedule.cycles`", "cycles"
        if table.warmup == 0:
            yield "warmup_lr", "without `schedule.warmup`", "warmup"
    elif isinstance(table, TrainTable):
        if table.ema == 0:
            yield "ema_ramp", "without `train.ema`", "ema"
        if table.focal is not None:
            yield "poly", "with `train.focal`: there is one label loss", "focal"
        if not table.mixup and not table.cutmix:
            yield "mix_share", "without `train.mixup` or `train.cutmix`", "mixup"
    elif isinstance(table, EvaluateTable):
        if table.tta in ("flip", "multi_scale"):
            yield "tta_resize", f'with `evaluate.tta = "{table.tta}"`', "tta"
        if table.tta not in ("auto", "multi_scale"):  # with `auto` the command line may ask for it
            yield "tta_scales", f'with `evaluate.tta = "{table.tta}"`', "tta"
