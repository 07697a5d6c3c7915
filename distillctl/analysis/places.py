"""Which runs somebody means by words on a command line."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from distillctl.analysis.records import Found, find_runs
from distillctl.errors import Problem, ProfileError
from distillctl.profile.problems import nearest, no_file
from distillctl.rundir.directory import ROOT


def named_runs(names: Sequence[str | Path], root: Path = ROOT) -> Found:
    """The runs at or below folders, sweeps and run directories, patterns for these, and names of what lies below `root`; without names
    all that are there.

    Raises:
        ProfileError: a name leads to no run; all such names are told.
    """
    places: list[Path] = []
    problems: list[Problem] = []
    for name in map(str, names or [root]):
        found = list(_places(name, root))
        if found and any(_has_runs(place) for place in found):
            places += found
        else:
            problems.append(_no_runs(name, found, root))
    if problems:
        raise ProfileError(problems)
    return find_runs(places)


def _places(name: str, root: Path) -> Iterator[Path]:
    for place in (Path(name), root / name):
        meant = [Path(one) for one in sorted(glob.glob(str(place)))] if set("*?[") & set(name) else [place]
        if found := [one for one in meant if _is_folder(one)]:
            yield from found
            return


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no folder can have
        return False


def _has_runs(place: Path) -> bool:
    return next(place.rglob("run.json"), None) is not None


def _no_runs(name: str, found: Sequence[Path], root: Path) -> Problem:
    if found:
        return Problem(f"there is no run in `{found[0]}`", hint="`distillctl train PROFILE` makes one")
    message, hint = no_file(Path(name))
    if message.startswith("there is no file"):
        known = [entry.name for entry in root.iterdir() if entry.is_dir()] if _is_folder(root) else []
        message, hint = f"there is no run `{name}`", nearest(name, known) or f"`{root}` holds {len(known)} folders"
    return Problem(message, hint=hint)
