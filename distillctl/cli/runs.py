"""`distillctl runs`: all runs in one table, the newest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import typer

from distillctl.analysis.control import controls_among
from distillctl.analysis.places import is_folder
from distillctl.analysis.records import Found, RunRecord, find_runs
from distillctl.cli import completion, options, render
from distillctl.errors import ProfileError
from distillctl.rundir.directory import ROOT
from distillctl.rundir.lock import held
from distillctl.text import counted, duration

_COLUMNS = (
    "run", "data", "teacher", "student", "method", "seed", "epochs", "state", "val", "test", "last", "gain", "time", "size", "begun",
)  # fmt: skip
_LESS = ("size", "last", "data", "time", "teacher", "epochs", "gain")
"""Columns that a narrow terminal does without, the first one first."""
_DOWN = ("begun", "val", "test", "last", "gain", "time", "size", "epochs")
"""Columns in which the largest value comes first."""


def runs(
    places: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATTERN|FOLDER]...",
            help="Which runs: a part of a name, method, model or data set, a pattern such as 'cub*', or a folder in which they lie.",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ] = None,
    sort: Annotated[
        str,
        typer.Option("--sort", metavar="COLUMN", help="Sort by a column, such as test, gain, time or method."),
    ] = "begun",
    json: options.Json = False,
) -> None:
    """List the runs below runs/ with what they are, how far they are, and their figures.

    val and test are figures of the chosen epoch, last those of the last one; gain is what a run has over one from labels alone that is else
    the same. Nothing is deleted or changed.

    Examples:
        distillctl runs

        distillctl runs kd --sort test
    """
    everything, found = _found(places or [])
    controls = controls_among(everything)
    rows = [row_of(run, controls.get(run.path)) for run in found.runs]
    for path, why in found.damaged:
        typer.echo("\n".join(render.wrapped(f"left out: {path}: {why}", 2)), err=True)
    if sort not in _COLUMNS:
        raise ProfileError(f"there is no column `{sort}`", where="--sort", hint=f"columns: {', '.join(_COLUMNS)}")
    rows = _sorted(rows, sort)
    if json:
        render.as_json([{**row, "run": str(row["run"]), "begun": row["begun"] and row["begun"].isoformat()} for row in rows])
        return
    shown = {run.path: run for run in found.runs}
    lines = [_cells(shown[row["run"]], row) for row in rows]
    render.table(_COLUMNS, [[line[column] for column in _COLUMNS] for line in lines], less=_LESS)
    unfinished = sum(row["state"] != "finished" for row in rows)
    render.line(counted(len(rows), "run") + (f", {unfinished} of them not finished" if unfinished else ""))


def row_of(run: RunRecord, control: RunRecord | None) -> dict[str, Any]:
    """A run as plain data. val, test, last: the figure that chooses epochs; gain: over the control, on the split of the result."""
    figure = run.metric
    best = run.figures(run.split or "val").get(figure)
    alone = None if control is None else control.figures(run.split).get(figure)
    test = run.figures("test").get(figure)
    return {
        "run": run.path,
        "name": run.name,
        "data": run.data,
        "teacher": run.teacher,
        "student": run.student,
        "method": run.method,
        "seed": run.seed,
        "epoch": run.epoch,
        "epochs": run.epochs,
        "state": _state(run),
        "metric": figure,
        "best_epoch": run.best_epoch,
        "val": run.figures("val").get(figure),
        "test": test,
        "last": run.figures(run.split or "val", "last").get(figure),
        "control": None if control is None else str(control.path),
        "gain": best - alone if best is not None and alone is not None else None,
        "seconds": run.seconds,
        "bytes": run.size,
        "begun": run.created,
    }


def _state(run: RunRecord) -> str:
    return run.state if run.finished else "running" if held(run.path) else "stopped"


def _found(words: Sequence[str]) -> tuple[Sequence[RunRecord], Found]:
    """All runs in the places that are named, and those that are meant."""
    folders = [Path(word) for word in words if is_folder(Path(word))]
    patterns = [word for word in words if not is_folder(Path(word))]
    found = find_runs(folders or [ROOT])
    if not found.runs and not found.damaged:
        where = " and ".join(f"`{folder}`" for folder in folders or [ROOT])
        raise ProfileError(f"there is no run below {where}", hint="`distillctl train PROFILE` makes one")
    kept = [run for run in found.runs if all(_matches(run, pattern) for pattern in patterns)]
    if patterns and not kept:
        raise ProfileError(f"no run fits {' and '.join(f'`{pattern}`' for pattern in patterns)}", hint="`distillctl runs` lists all")
    return found.runs, Found(kept, () if patterns else found.damaged)


def _matches(run: RunRecord, pattern: str) -> bool:
    words = [run.path.name, str(run.path), run.name, run.method, run.student, run.teacher, run.data, _state(run)]
    if any(sign in pattern for sign in "*?["):
        return any(fnmatchcase(word.lower(), pattern.lower()) for word in words)
    return any(pattern.lower() in word.lower() for word in words)


def _sorted(rows: list[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    key = {"time": "seconds", "size": "bytes", "epochs": "epoch"}.get(column, column)
    known = [row for row in rows if row[key] is not None]
    known.sort(key=lambda row: str(row[key]) if key == "run" else row[key], reverse=column in _DOWN)
    return [*known, *(row for row in rows if row[key] is None)]


def _cells(run: RunRecord, row: Mapping[str, Any]) -> dict[str, str]:
    """What a table shows of a run, by column."""
    figures = {name: "" if row[name] is None else run.show(run.metric, row[name]) for name in ("val", "test", "last")}
    gain = "" if row["gain"] is None else run.show(run.metric, row["gain"]).removesuffix("%")
    return {
        "run": str(run.path.relative_to(ROOT) if run.path.is_relative_to(ROOT) else run.path),
        "data": run.data,
        "teacher": run.teacher,
        "student": run.student,
        "method": run.method,
        "seed": str(run.seed),
        "epochs": str(run.epochs),
        "state": "" if run.finished else f"{row['state']} at {run.epoch}",
        **figures,
        "gain": gain if not gain or gain.startswith("-") else f"+{gain}",
        "time": duration(run.seconds),
        "size": f"{row['bytes'] / 1e6:,.1f} MB",
        "begun": _begun(run.created),
    }


def _begun(created: datetime | None) -> str:
    """The time of today's runs, the day of others."""
    if created is None:
        return ""
    begun, now = created.astimezone(), datetime.now().astimezone()
    return f"{begun:%H:%M}" if begun.date() == now.date() else f"{begun:%d %b}" if begun.year == now.year else f"{begun:%Y-%m-%d}"
