"""The control of a run: a finished one beside it that learnt from labels alone, and in which nothing else was different."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from distillctl.errors import DataError
from distillctl.profile.identity import identity
from distillctl.rundir.directory import RunDirectory, runs_in

_SAME = ("data_listing", "file_sizes", "processes")
"""Keys of `run.json` that must not differ."""
_DISTILLS = ("method", "teacher")
"""Tables of a profile that a control does without."""


def control_of(run: RunDirectory) -> RunDirectory | None:
    """The newest control in the folder of a run; None if there is none, or the run learns from labels alone itself.

    Profiles are compared by every value that their results depend on, but for methods and teacher; data by names, labels, sizes and, where
    they are in memory, pixels; packages by the versions of those that both runs use. A run that went on after a change is no control.
    """
    mine = run.info()
    wanted = _profile(run)
    if mine.get("method") == "none" or wanted is None or "changes" in mine:
        return None
    for other in runs_in(run.path.parent):
        try:
            info = other.info()
        except DataError:
            continue
        fits = info["state"] == "finished" and info.get("method") == "none" and "changes" not in info
        if fits and _same(mine, info) and _profile(other) == wanted:
            return other
    return None


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    versions, others = one.get("packages", {}), other.get("packages", {})
    packages = all(others[package] == version for package, version in versions.items() if package in others)
    return packages and all(one.get(key) == other.get(key) for key in _SAME)


def _profile(run: RunDirectory) -> dict[str, Any] | None:
    """What a run was asked to do, without what it should distil; None where that cannot be read."""
    try:
        resolved = tomllib.loads(run.check_resolved().read_text(encoding="utf-8"))
    except (DataError, OSError, ValueError):
        return None
    return identity({name: table for name, table in resolved.items() if name not in _DISTILLS})
