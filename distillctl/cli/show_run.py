"""`show RUN`: what a run is, its figures, and what student and teacher cost."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillctl.cli import render
from distillctl.errors import DataError, DistillError
from distillctl.profile.reading import from_resolved
from distillctl.profile.schema import WAYS
from distillctl.rundir.directory import RunDirectory
from distillctl.text import counted

if TYPE_CHECKING:
    from distillctl.api.task import Task
    from distillctl.plugin.registry import Registry


def run_description(path: Path) -> dict[str, Any]:
    """A run as plain data: what was trained by what on which data, how far it came, and its result; without torch.

    Raises:
        DataError: the run is damaged.
    """
    run = RunDirectory.open(path)
    info = run.info()
    try:
        profile = tomllib.loads(run.check_resolved().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"`{run.resolved}` cannot be read: {error}") from error
    tables = {name: table if isinstance(table := profile.get(name), dict) else {} for name in ("student", "dataset")}
    taught = profile.get("teacher", {})
    teachers = [_teacher(table) for table in (taught if isinstance(taught, list) else [taught])]
    records = run.records()
    return {
        "run": str(path),
        "name": info.get("name"),
        "state": info["state"],
        "epoch": info.get("epoch"),
        "epochs": info.get("epochs"),
        "best_epoch": info.get("best_epoch"),
        "student": tables["student"].get("name"),
        "teacher": teachers if len(teachers) > 1 else teachers[0],
        "method": info.get("method"),
        "dataset": tables["dataset"].get("name"),
        "data": info.get("data"),
        "seed": profile.get("seed"),
        "created": info.get("created"),
        "result": info.get("result", {}),
        "costs": info.get("costs", {}),
        "last_epoch": records[-1] if records else {},
    }


def _teacher(table: Mapping[str, Any]) -> str | None:
    """Its model and where its weights are from: `torchvision/resnet50, checkpoint my.pth`."""
    way = next((way for way in WAYS if table.get(way)), "")
    if not way:
        return None
    value = str(table[way])
    if os.path.isabs(value):
        with suppress(ValueError):
            value = str(Path(value).relative_to(Path.cwd()))
    return ", ".join(filter(None, (table.get("name"), f"{way} {value}")))


def print_run(path: Path, registry: Registry) -> None:
    """The same in words, ending like the last screen of `train`."""
    told = run_description(path)
    finished = told["state"] == "finished"
    render.heading(f"run {path}: {_progress(told, finished)}")
    data = ": ".join(filter(None, (told["dataset"], told["data"])))
    facts = {name: told[name] for name in ("student", "teacher", "method")} | {"data": data, "seed": told["seed"], "begun": told["created"]}
    for name, value in facts.items():
        for one in value if isinstance(value, list) else [value]:
            if one not in (None, ""):
                render.words(f"  {name:<11}{one}", 13)
    with render.loading():
        task = _task(path, registry)
    render.line()
    if finished:
        from distillctl.cli.train import print_result
        from distillctl.commands.train import Result

        print_result(Result(path, False, task, told["result"]))
        return
    figures = told["last_epoch"].get("val")
    if isinstance(figures, dict):
        shown = [f"{words} {task.show(name, figures[name])}" for name, words in task.names.items() if name in figures]
        render.words(f"last       {', '.join(shown)} on val (epoch {told['last_epoch'].get('epoch')})", 11)
    if told["best_epoch"]:
        render.words(f"best       epoch {told['best_epoch']}", 11)
    render.words("go on      by the `distillctl train` command that began it", 11)


def _progress(told: Mapping[str, Any], finished: bool) -> str:
    epochs = counted(told["epochs"], "epoch") if isinstance(told["epochs"], int) else "all epochs"
    return f"finished, {epochs}" if finished else f"not finished, {told['epoch']} of {epochs}"


def _task(path: Path, registry: Registry) -> type[Task]:
    """The task of its data; that of a finished run is known without the packages of its data set."""
    from distillctl.api.task import Task
    from distillctl.build.data import task_class
    from distillctl.models import deploy
    from distillctl.plugin.registry import load_class

    with suppress(DistillError):
        name = deploy.read_model_json(path).get("task", deploy.TASK)
        return load_class(registry.tasks.get(name), Task, "task")
    return task_class(from_resolved(path, registry, student_only=True), registry)
