"""A sweep: the runs of one profile that a grid, a draw or a search makes, in one folder, and what `sweep.json` in it says of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from distillctl.analysis.comparison import lower_is_better
from distillctl.analysis.control import LABELS_ALONE
from distillctl.analysis.records import RunRecord, record_in
from distillctl.errors import DataError, Problem, ProfileError
from distillctl.files import read_json, write_json
from distillctl.plugin.registry import Registry
from distillctl.profile.document import parse_edit, split_key
from distillctl.profile.identity import digest_of
from distillctl.profile.schema import MAX_RUNS, Profile
from distillctl.profile.sweep import Axis, Range, Sweep, combinations, samples
from distillctl.profile.writing import value_text
from distillctl.rundir.directory import ROOT, RunDirectory
from distillctl.rundir.lock import held
from distillctl.slurm.request import Request
from distillctl.text import some

FILE = "sweep.json"
FORMAT = 1
_LONGEST = 80  # letters of a folder's name before seed and digest
_TAUGHT = ("method", "teacher")
"""Tables of a profile that a run on labels alone does without."""


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    name: its methods and values, without the seed.
    request: what it trains, with the digest of its profile.
    path: its run directory.
    """

    name: str
    values: Mapping[str, Any]
    seed: int
    request: Request
    path: Path

    @property
    def title(self) -> str:
        """The name with the seed."""
        return f"{self.name}, seed {self.seed}"

    @property
    def finished(self) -> bool:
        """Whether all of it is done."""
        try:
            return (self.path / "run.json").is_file() and RunDirectory(self.path).finished
        except DataError:  # its training says what is wrong with it
            return False

    @property
    def record(self) -> RunRecord | None:
        """The run, as far as it is; None if it has not begun."""
        return record_in(self.path)


@dataclass(frozen=True)
class Plan:
    """A checked sweep.

    profile: without any value of the grid.
    cells: all runs; of a search those of its controls, since the others are not known yet.
    notes: what is to be said of them.
    """

    folder: Path
    request: Request
    sweep: Sweep
    profile: Profile
    registry: Registry
    cells: Sequence[Cell]
    notes: Sequence[str] = ()

    @property
    def seeds(self) -> Sequence[int]:
        """Those of every combination."""
        return self.sweep.seeds or (self.profile.seed,)

    @property
    def total(self) -> int:
        """How many runs it will have had."""
        return len(self.cells) + self.sweep.trials * len(self.seeds)

    def cells_of(self, values: Mapping[str, Any]) -> list[Cell]:
        """The runs of one combination, one a seed.

        Raises:
            ProfileError: the profile is not right with these values.
        """
        return _cells_of(self.request, _effective(values, self.request), self.seeds, self.registry, self.folder)


def plan(request: Request, sweep: Sweep, registry: Registry, out: Path | None = None) -> Plan:
    """Checks the profile with all values of the sweep.

    Args:
        request: what `train` would be asked for, without a seed.
        sweep: the values, seeds and so on.
        registry: where names are found.
        out: the sweep's folder; otherwise one below `runs/`, named after the profile, the keys of the grid and what else is set.

    Raises:
        ProfileError: with every problem, and which runs have it; or the folder holds something else.
    """
    profile = request.load(registry)
    folder = _folder(profile, sweep) if out is None else out
    _check_folder(folder, request.profile)
    made = Plan(folder, request, sweep, profile, registry, ())
    listed = list(samples(sweep.grid)) if sweep.optimize else combinations(sweep, profile.seed)
    wanted = [(True, values) for values in _each_once(_effective(values, request) for values in listed)]
    if sweep.control:
        own: list[dict[str, Any]] = [{}]  # a search has no list of values
        wanted += [(False, values) for values in _each_once(_control(values) for values in (own if sweep.optimize else listed))]
    cells: dict[str, Cell] = {}
    notes: list[str] = []
    problems: dict[Problem, list[str]] = {}
    for of_grid, values in wanted:
        try:
            found = made.cells_of(values)
        except ProfileError as error:
            for problem in error.problems:
                problems.setdefault(problem, []).append(_name(request.method or "", values))
            continue
        for cell in found if not (of_grid and sweep.optimize) else ():
            same = cells.setdefault(cell.request.digest, cell)
            if of_grid and same is not cell:
                notes.append(f"`{cell.title}` is the same run as `{same.title}`, which is trained once")
    if problems:
        raise ProfileError([_told(problem, names, len(wanted)) for problem, names in problems.items()])
    if len(cells) > MAX_RUNS:
        raise ProfileError(f"the sweep has {len(cells):,} runs, more than {MAX_RUNS:,}", where="--grid", hint="`--random N` draws some")
    return replace(made, cells=tuple(cells.values()), notes=notes)


def _told(problem: Problem, names: Sequence[str], count: int) -> Problem:
    """A problem with the runs that have it, where not all do."""
    return problem if len(names) == count else replace(problem, message=f"{some(names)}: {problem.message}")


def _each_once(many: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return list({repr(values): values for values in many}.values())


def _cells_of(base: Request, values: Mapping[str, Any], seeds: Sequence[int], registry: Registry, folder: Path) -> list[Cell]:
    edits = {f"{key}={value_text(value)}": key for key, value in values.items() if key not in _TAUGHT}
    method, teacher = values.get("method", base.method), values.get("teacher", base.teacher)
    kept = base.overrides
    if method == LABELS_ALONE:  # what teaches has no effect, and would be refused
        kept, teacher = tuple(text for text in kept if parse_edit(text).parts[0] not in _TAUGHT), None
    request = replace(base, overrides=(*kept, *edits), method=method, teacher=teacher)
    try:
        profile = request.load(registry)
    except ProfileError as error:
        places = {f"--set {edit}": f"--grid {key}" for edit, key in edits.items()}
        places |= {f"--{key} {values[key]}": f"--grid {key}" for key in _TAUGHT if key in values}
        raise ProfileError(replace(problem, where=places.get(problem.where, problem.where)) for problem in error.problems) from None
    name = _name("+".join(choice.spec.name for choice in profile.methods), values)
    cells = []
    for seed in seeds:
        digest = digest_of({**profile.resolved, "seed": seed})
        path = _place(folder, name, seed, digest)
        cells.append(Cell(name, values, seed, replace(request, seed=seed, out=path, digest=digest), path))
    return cells


def _effective(values: Mapping[str, Any], request: Request) -> Mapping[str, Any]:
    """The values that a combination has a use for: one of labels alone is taught nothing."""
    return _control(values) if values.get("method", request.method) == LABELS_ALONE else values


def _control(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a combination's control."""
    return {"method": LABELS_ALONE, **{key: value for key, value in values.items() if (split_key(key) or ("",))[0] not in _TAUGHT}}


def _name(method: str, values: Mapping[str, Any]) -> str:
    """`kd temperature=4`: the methods, and each value with the last part of its key, or all of it where two would look alike."""
    lasts = [key.rpartition(".")[2] for key in values]
    shown = {key: last if lasts.count(last) == 1 else key for key, last in zip(values, lasts, strict=True) if key != "method"}
    words = [f"{short}={_short(values[key])}" for key, short in shown.items()]
    return " ".join([method or str(values.get("method", "")), *words]).strip()


def _short(value: Any) -> str:
    return value if isinstance(value, str) else value_text(value)


def _place(folder: Path, name: str, seed: int, digest: str) -> Path:
    """The run directory: the one of this digest that is there, whatever it is called, since a grid with more keys gives longer names."""
    end = f"-s{seed}-{digest[:8]}"
    existing = sorted(folder.glob(f"*{end}")) if folder.is_dir() else []
    return existing[0] if existing else folder / (re.sub(r"[^\w.=+-]+", "_", name)[:_LONGEST].lstrip(".-") + end)


def _folder(profile: Profile, sweep: Sweep) -> Path:
    """More values or seeds belong to the same sweep, other keys to another one. A search has its values fixed from the beginning."""
    searched = [{key: str(axis) for key, axis in sweep.grid.items()}, sweep.optimize, sweep.seeds] if sweep.optimize else []
    what = [digest_of({**profile.resolved, "seed": 0}), sorted(sweep.grid), searched]
    digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    return ROOT / f"{profile.name}-{'sweep' if sweep.grid else 'seeds'}-{digest[:8]}"


def _check_folder(folder: Path, profile: str) -> None:
    """Checks that a folder is free, or holds a sweep of this profile.

    Raises:
        ProfileError: it does not.
    """
    if not folder.exists():
        return
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else {""}
    if FILE not in names and names - {"run.lock", "logs"}:
        raise ProfileError(f"`{folder}` exists and is not a sweep", where="--out", hint="nothing is overwritten: name another folder")
    if (told := Book.read(folder).get("profile", profile)) != profile:
        raise ProfileError(f"`{folder}` is a sweep of another profile, `{told}`", where="--out", hint="name another folder")


class Book:
    """`sweep.json`, written anew at each change. Runs of earlier commands on the same folder stay in it."""

    def __init__(self, made: Plan) -> None:
        self._path = made.folder / FILE
        self._written = before = self.read(made.folder)
        self._entries: dict[str, dict[str, Any]] = {entry["run"]: entry for entry in before.get("cells", ())}
        sweep = made.sweep
        grid, seeds = before.get("grid", {}), before.get("seeds", [])
        self._head = {
            "format": FORMAT,
            "profile": made.request.profile,
            "grid": {**grid, **{key: _joined(grid.get(key), axis) for key, axis in sweep.grid.items()}},
            "seeds": [*seeds, *(seed for seed in made.seeds if seed not in seeds)],
            "control": sweep.control or before.get("control", False),
            **({"optimize": sweep.optimize} if sweep.optimize else {}),
        }

    @staticmethod
    def read(folder: Path) -> dict[str, Any]:
        """What a folder's `sweep.json` says; empty where there is none.

        Raises:
            DataError: it is damaged.
        """
        try:
            found = read_json(folder / FILE)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise DataError(f"`{folder / FILE}` cannot be read: {error}") from error
        cells = found.get("cells", []) if isinstance(found, dict) else None
        if not isinstance(cells, list) or not all(isinstance(cell, dict) and isinstance(cell.get("run"), str) for cell in cells):
            raise DataError(f"`{folder / FILE}` does not describe a sweep")
        return dict(found)

    def entry(self, cell: Cell) -> Mapping[str, Any]:
        """What it says of a run; empty if that is new."""
        return self._entries.get(cell.path.name, {})

    def note(self, state: str, *cells: Cell, error: str = "", job: str = "") -> None:
        """Writes the state of runs: `waiting`, `running`, `submitted`, `finished`, `stopped` or `failed`."""
        for cell in cells:
            told = {"name": cell.name, "values": dict(cell.values), "seed": cell.seed, "run": cell.path.name, "state": state}
            self._entries[cell.path.name] = {**told, "error": error, **({"job": job} if job else {})}
        whole = {**self._head, "cells": list(self._entries.values())}
        if whole != self._written:
            write_json(self._path, whole)
            self._written = whole


def _joined(before: Any, axis: Axis) -> Any:
    if isinstance(axis, Range):
        return str(axis)
    known = before if isinstance(before, list) else []
    return [*known, *(value for value in axis if value not in known)]


@dataclass(frozen=True)
class Row:
    """The runs of one combination.

    wanted: the figure that is meant; empty for the one that chooses epochs.
    """

    name: str
    cells: Sequence[Cell]
    wanted: str = ""

    @cached_property
    def records(self) -> Sequence[RunRecord]:
        """The finished runs."""
        return [record for cell in self.cells if (record := cell.record) is not None and record.finished]

    @property
    def metric(self) -> str:
        """The figure's name; empty if no run is finished."""
        return self.wanted or (self.records[0].metric if self.records else "")

    def mean(self, split: str) -> float | None:
        """The figure on a split, as the mean over the finished runs; None if none has it."""
        found = [value for record in self.records if (value := record.figures(split).get(self.metric)) is not None]
        return fmean(found) if found else None

    def show(self, split: str) -> str:
        """The mean as text."""
        value = self.mean(split)
        return "" if value is None else self.records[0].show(self.metric, value)


def rows(cells: Iterable[Cell], wanted: str = "") -> list[Row]:
    """Cells by their names, in the order of the first of each; with a figure that is wanted, the best on the validation split first."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.name, []).append(cell)
    made = [Row(name, group, wanted) for name, group in found.items()]
    if not wanted:
        return made
    known = sorted((row for row in made if row.mean("val") is not None), key=lambda row: row.mean("val") or 0.0)
    ordered = known if lower_is_better(wanted) else known[::-1]
    return [*ordered, *(row for row in made if row.mean("val") is None)]


def state_of(cell: Cell, book: Book) -> str:
    """What a run is before the sweep begins, in a word or two."""
    record = cell.record
    if record is not None and record.finished:
        return "finished"
    if held(cell.path):
        return "running"
    told = str(book.entry(cell).get("state", ""))
    if told in ("failed", "submitted"):
        return told
    return "new" if record is None else f"stopped at {record.epoch}/{record.epochs}"


def seconds_left(made: Plan) -> float | None:
    """About how long the rest takes, by the finished runs of the same method, or all; None if there are none."""
    spent: dict[str, list[float]] = {}
    done = 0
    for path in [made.folder / entry["run"] for entry in Book.read(made.folder).get("cells", ())]:
        record = RunRecord.read(path) if (path / "run.json").is_file() else None
        if record is not None and record.finished:
            spent.setdefault(record.method, []).append(record.seconds)
            done += all(path != cell.path for cell in made.cells)
    everything = [seconds for each in spent.values() for seconds in each]
    if not everything:
        return None
    left = max(0, made.total - len(made.cells) - done) * fmean(everything)  # of a search
    for cell in made.cells:
        if not cell.finished:
            record = cell.record
            part = 1 - record.epoch / record.epochs if record is not None and record.epochs else 1.0
            left += part * fmean(spent.get(cell.name.split()[0], everything))
    return left / made.sweep.jobs


def submit(made: Plan, send: Callable[[Sequence[Request]], Sequence[str]], queued: Callable[[str], bool]) -> Iterator[tuple[Cell, str]]:
    """Hands runs that are missing over to a batch system, and notes the job of each; gives each of them with its job.

    Args:
        made: the sweep.
        send: submits trainings, and gives the number of each one's job.
        queued: whether a job waits or runs.
    """
    made.folder.mkdir(parents=True, exist_ok=True)
    book = Book(made)
    missing = []
    for cell in made.cells:
        job = str(book.entry(cell).get("job", ""))
        if cell.finished:
            book.note("finished", cell)
        elif not held(cell.path) and not (job and queued(job)):
            missing.append(cell)
    for cell, job in zip(missing, send([cell.request for cell in missing]) if missing else (), strict=True):
        book.note("submitted", cell, job=job)
        yield cell, job
