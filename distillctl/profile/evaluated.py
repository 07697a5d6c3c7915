"""What an evaluation without a run reads: the data of a profile or of a run, and a network that the command line names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distillctl.errors import ProfileError
from distillctl.plugin.registry import Registry
from distillctl.profile.checking import Check, split
from distillctl.profile.document import Document
from distillctl.profile.identity import digest_of
from distillctl.profile.problems import Problems
from distillctl.profile.reading import student_of, with_edits
from distillctl.profile.schema import EvaluateTable, Profile, StudentChoice, StudentTable, TeacherChoice, TeacherTable, TrainTable
from distillctl.profile.tables import read_core_table, read_dataset, read_optimizer, read_schedule, read_seed
from distillctl.profile.teacher import Teachers, by_weights, read_teachers

_KEPT = ("seed", "dataset", "evaluate", "train", "teacher")
_NOT_OURS = ("run", "profile", "overrides", "allow_untrained")
"""Keys of a teacher that a network which is named on the command line does not have."""


def load_evaluated(
    path: str | Path,
    model: str,
    *,
    registry: Registry,
    checkpoint: str | Path | None = None,
    weights: str = "",
    with_teacher: bool = False,
    overrides: Sequence[str] = (),
) -> tuple[Profile, TeacherChoice]:
    """The data of a profile or of a run directory, as a profile whose student is this model, and the model with its weights.

    Of the profile, [dataset], [evaluate], `seed` and `train.workers` count; whatever else stands in it is not looked at.

    model: its name. checkpoint, weights: one of them is given. with_teacher: [teacher] counts, too; where images have no labels it does.
    overrides: `KEY=VALUE`, as for `load`; those of the table `model` are what [teacher] has for a `checkpoint` or `weights`: options of
        the model, `key`, `mean`, `std` and `image_size`.

    Raises:
        ProfileError: with every problem, each with its place.
    """
    path = Path(path)
    of_run = path.is_dir()
    document = _data_alone(Document.read(path / "resolved.toml" if of_run else path))
    for key, value in (("name", model), ("checkpoint", checkpoint), ("weights", weights)):
        if value:
            document = document.stating(("model", key), str(value), f"--{'model' if key == 'name' else key} {value}")
    problems = Problems()
    document = with_edits(document, overrides, problems)
    choice = _read_model(Check(document, registry, problems))
    check = Check(document, registry, problems, trusted=of_run)
    seed, dataset, evaluate = read_seed(check), read_dataset(check), read_core_table(check, "evaluate", EvaluateTable)
    train, optimizer, schedule = read_core_table(check, "train", TrainTable), read_optimizer(check), read_schedule(check)
    with_teacher |= dataset is not None and dataset.task in registry.tasks and not registry.tasks.get(dataset.task).labelled
    asked = with_teacher and "teacher" in document.data
    teachers = read_teachers(check, lambda place, edits: student_of(check, place, edits, (path.resolve(),))) if asked else Teachers()
    if problems.found:
        raise ProfileError(problems.found)
    assert choice is not None
    assert choice.spec is not None
    assert choice.options is not None
    assert dataset is not None
    assert evaluate is not None
    assert train is not None
    assert optimizer is not None
    assert schedule is not None
    profile = Profile(
        path=document.path,
        text=document.text,
        seed=seed,
        dataset=dataset,
        student=StudentChoice(choice.spec, StudentTable(name=choice.spec.qualified), choice.options),
        teachers=teachers.choices,
        methods=(),
        task_weight=1.0,
        optimizer=optimizer,
        schedule=schedule,
        train=train,
        evaluate=evaluate,
        resolved=check.resolved,
        origins=check.origins,
        digest=digest_of(check.resolved),
    )
    return profile, choice


def _data_alone(document: Document) -> Document:
    """The document without what is said of a training."""
    for name in [name for name in document.data if name not in _KEPT]:
        document = document.without((name,))
    train = document.data.get("train", {})
    if not isinstance(train, dict):
        return document.without(("train",)).stating(("train", "epochs"), 1, str(document.path))
    for name in [name for name in train if name != "workers"]:
        document = document.without(("train", name))
    return document.stating(("train", "epochs"), 1, str(document.path))  # a number that the table needs, and nobody reads


def _read_model(check: Check) -> TeacherChoice | None:
    """The network that is evaluated."""
    values: dict[str, Any] = check.stated("model") or {}
    core, own = split(values, TeacherTable)
    for name in [name for name in _NOT_OURS if name in core]:
        message = f"`model.{name}` means nothing here: the network is named by its model and its weights"
        check.complain(message, ("model", name), "`distillctl eval RUN` evaluates that of a run" if name == "run" else "leave it out")
        del core[name]
    table = check.table(TeacherTable, core, ("model",))
    if table is None:
        return None
    if bool(table.checkpoint) == bool(table.weights):
        found = "has weights by name and a file of weights, too" if table.weights else "has no weights"
        hint = "`--checkpoint FILE` names a file of weights, `--weights NAME` those that the model knows by a name"
        check.complain(f"the model `{table.name}` {found}", ("model", "weights" if table.weights else "name"), f"one of both: {hint}")
        return None
    return by_weights(check, ("model",), table, own, values)
