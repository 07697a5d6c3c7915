"""The control of a run: a finished one beside it that learnt from labels alone, and in which nothing else was different."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distillctl.analysis.records import RunRecord, record_in
from distillctl.profile.identity import identity
from distillctl.rundir.directory import runs_in

_SAME = ("data_listing", "file_sizes", "processes")
"""Keys of `run.json` that must not differ."""
_DISTILLS = ("method", "teacher")
"""Tables of a profile that a control does without."""
LABELS_ALONE = "none"
"""The method of a control."""


def control_beside(path: Path) -> RunRecord | None:
    """The newest control in the folder of a run; None if there is none, or the run cannot be read."""
    run = record_in(path)
    if run is None:
        return None
    return control_of(run, (record for other in runs_in(path.parent) if (record := record_in(other.path)) is not None))


def control_of(run: RunRecord, among: Iterable[RunRecord]) -> RunRecord | None:
    """The first control of a run; None if there is none, or the run learns from labels alone itself.

    Profiles are compared by every value that their results depend on, but for methods and teacher; data by names, labels, sizes and, where
    they are in memory, pixels; packages by the versions of those that both runs use. A run that went on after a change is no control.
    """
    if run.method == LABELS_ALONE or "changes" in run.info:
        return None
    wanted = _without_teaching(run)
    return next((other for other in among if _is_control(other, run) and _without_teaching(other) == wanted), None)


def controls_among(runs: Sequence[RunRecord]) -> dict[Path, RunRecord]:
    """For every run that has one its control among these, by the run's path; the first where there are several."""
    alone: dict[str, list[RunRecord]] = defaultdict(list)
    for run in runs:
        if run.method == LABELS_ALONE:
            alone[_key(run)].append(run)
    found = {run.path: control_of(run, alone.get(_key(run), ())) for run in runs if run.method != LABELS_ALONE}
    return {path: control for path, control in found.items() if control is not None}


def _key(run: RunRecord) -> str:
    return json.dumps(_without_teaching(run), sort_keys=True, default=str)


def _is_control(other: RunRecord, run: RunRecord) -> bool:
    return other.finished and other.method == LABELS_ALONE and "changes" not in other.info and _same(run.info, other.info)


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    versions, others = one.get("packages", {}), other.get("packages", {})
    packages = all(others[package] == version for package, version in versions.items() if package in others)
    return packages and all(one.get(key) == other.get(key) for key in _SAME)


def _without_teaching(run: RunRecord) -> dict[str, Any]:
    """What a run was asked to do, without what it should distil."""
    return identity({name: table for name, table in run.resolved.items() if name not in _DISTILLS})
