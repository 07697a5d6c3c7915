"""Runs as they are found on disk: what each was, how far it came, and its figures. Nothing here imports torch or writes a file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from distillctl.errors import DataError
from distillctl.files import read_json
from distillctl.profile.identity import identity
from distillctl.profile.schema import WAYS
from distillctl.rundir.directory import ROOT, RunDirectory

_CLASSIFICATION = {
    "metric": "top1",
    "names": {"top1": "top-1", "top5": "top-5", "mpa": "mpa", "loss": "loss"},
    "percent": ["top1", "top5", "mpa"],
}
"""How figures of runs are shown that do not say it themselves, since they are older."""

At = Literal["best", "last"]
MAIN = "main"
"""The part of a run that trains the student; others are phases of its methods."""


@dataclass(frozen=True)
class RunRecord:
    """One run.

    info: `run.json`.
    resolved: `resolved.toml`.
    """

    path: Path
    info: Mapping[str, Any]
    resolved: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> RunRecord:
        """The run in a directory.

        Raises:
            DataError: there is none, or it is damaged.
        """
        run = RunDirectory.open(path)
        info = run.info()
        file = run.check_resolved()
        try:
            return cls(path, info, tomllib.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise DataError(f"`{file}` cannot be read: {error}") from error

    # What it is.

    @property
    def name(self) -> str:
        """Of the profile."""
        return str(self.info.get("name", self.path.name))

    @property
    def state(self) -> str:
        """`finished` or `running`; the latter also if it was stopped or killed."""
        return str(self.info["state"])

    @property
    def finished(self) -> bool:
        """Whether all epochs are done and the result is there."""
        return self.state == "finished"

    @property
    def method(self) -> str:
        """The methods: `kd`, `kd+at`, or `none`."""
        return str(self.info.get("method", ""))

    @property
    def student(self) -> str:
        """The student's model, without the family in front of its name."""
        return str(self.info.get("student") or self._name("student").rpartition("/")[2])

    @property
    def teacher(self) -> str:
        """The teacher's model; where an older run does not say it, its file or profile; empty where none taught."""
        if isinstance(told := self.info.get("teacher"), str):
            return told
        tables = self.resolved.get("teacher", {})
        tables = tables if isinstance(tables, list) else [tables]
        return "+".join(name for table in tables if (name := str(table.get("name") or _source(table))))

    @property
    def data(self) -> str:
        """The data set's name."""
        return self._name("dataset")

    @property
    def seed(self) -> int:
        """Of order, views and weights."""
        found = self.resolved.get("seed", 0)
        return found if isinstance(found, int) else 0

    @property
    def epoch(self) -> int:
        """Finished epochs, those of phases included."""
        return int(self.info.get("epoch", 0))

    @property
    def epochs(self) -> int:
        """All epochs that it has, those of phases included."""
        return int(self.info.get("epochs", 0))

    @property
    def best_epoch(self) -> int:
        """The epoch of the main part that was chosen, from 1; 0 if there is none yet."""
        return int(self.info.get("best_epoch", 0))

    @property
    def created(self) -> datetime | None:
        """When it began, in UTC."""
        try:
            return datetime.fromisoformat(str(self.info.get("created")))
        except ValueError:
            return None

    @property
    def seconds(self) -> float:
        """Of all training and evaluations so far."""
        return float(self.info.get("seconds", 0.0))

    @property
    def result(self) -> Mapping[str, Any]:
        """The key `result` of `run.json`: empty until it is finished."""
        found = self.info.get("result", {})
        return found if isinstance(found, dict) else {}

    @property
    def split(self) -> str:
        """The split of the result's figures."""
        return str(self.result.get("split", ""))

    @cached_property
    def environment(self) -> Mapping[str, Any]:
        """`environment.json`: versions, device, command; empty where it cannot be read."""
        try:
            found = read_json(self.path / "environment.json")
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @cached_property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """The lines of `metrics.jsonl`, one an epoch."""
        return [line for line in RunDirectory(self.path).records() if isinstance(line, dict)]

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Every value that the result depends on, by dotted key."""
        return identity(self.resolved)

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(
            entry.stat().st_size for folder, _, names in os.walk(self.path) for name in names if (entry := Path(folder, name)).is_file()
        )

    # Its figures.

    @property
    def metric(self) -> str:
        """The figure that chooses the best epoch; higher is better."""
        return str(self._shown["metric"])

    @property
    def names(self) -> Mapping[str, str]:
        """Figures in the order in which they are shown, with the words for them."""
        found: Mapping[str, str] = self._shown["names"]
        return found

    def show(self, name: str, value: float) -> str:
        """A figure as text: `73.12%`, `0.8123`."""
        return f"{value:.2%}" if self.is_share(name) else f"{value:.4f}"

    def is_share(self, name: str) -> bool:
        """Whether a figure is told in percent."""
        return name in self._shown["percent"]

    def part(self, name: str = MAIN) -> list[Mapping[str, Any]]:
        """The lines of `history` of one part of the run."""
        return [line for line in self.history if line.get("phase", MAIN) == name]

    def figures(self, split: str, at: At = "best") -> Mapping[str, float]:
        """The figures on a split, of the chosen epoch or of the last one; empty where they are not known.

        Those of the result are of its student as it is deployed; others are those that the training wrote at the end of an epoch.
        """
        if split == self.split and isinstance(found := self.result.get(at), dict):
            return {name: value for name, value in found.items() if name != "epoch"}
        lines = [line for line in self.part() if isinstance(line.get(split), dict)]
        if at == "best":
            lines = [line for line in lines if line.get("epoch") == self.best_epoch]
        return dict(lines[-1][split]) if lines else {}

    @property
    def _shown(self) -> Mapping[str, Any]:
        told = self.info.get("shown")
        if isinstance(told, dict) and {"metric", "names", "percent"} <= told.keys():
            return told
        best = self.result.get("best", {})
        metric = next((name for name in best if name != "epoch"), "top1") if isinstance(best, dict) else "top1"
        if metric == "top1":
            return _CLASSIFICATION
        return {"metric": metric, "names": {name: name for name in best if name not in ("epoch", "count")}, "percent": [metric]}

    def _name(self, table: str) -> str:
        found = self.resolved.get(table)
        return str(found.get("name", "")) if isinstance(found, dict) else ""


def record_in(path: Path) -> RunRecord | None:
    """The run in a directory; None where there is none, or it cannot be read."""
    try:
        return RunRecord.read(path)
    except DataError:
        return None


class Found(NamedTuple):
    """What was looked for.

    runs: the newest first.
    damaged: the others, each with what is wrong.
    """

    runs: Sequence[RunRecord]
    damaged: Sequence[tuple[Path, str]]


def find_runs(places: Sequence[Path] = (ROOT,)) -> Found:
    """Every run at or below these places, in folders of any depth; a run that is found twice is there once."""
    runs: list[tuple[int, RunRecord]] = []
    damaged: list[tuple[Path, str]] = []
    for path in dict.fromkeys(path for place in places for path in _below(place)):
        try:
            runs.append(((path / "run.json").stat().st_mtime_ns, RunRecord.read(path)))
        except DataError as error:
            damaged.append((path, error.problems[0].message))
        except OSError as error:
            damaged.append((path, (error.strerror or str(error)).lower()))
    runs.sort(key=lambda one: one[0], reverse=True)
    return Found([run for _, run in runs], damaged)


def _below(place: Path) -> Iterator[Path]:
    """Run directories; what lies within one is part of it."""
    for folder, below, files in os.walk(place):
        if "run.json" in files:
            below.clear()
            yield Path(folder)
        below.sort()


def _source(table: Mapping[str, Any]) -> str:
    way = next((way for way in WAYS if table.get(way)), "")
    return Path(str(table[way])).stem if way else ""
