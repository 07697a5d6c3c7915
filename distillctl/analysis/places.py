"""Which runs somebody means by words on a command line."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from distillctl.analysis.records import Found, RunRecord, find_runs
from distillctl.errors import Problem, ProfileError
from distillctl.files import read_json
from distillctl.profile.problems import nearest, no_file
from distillctl.rundir.directory import ROOT
from distillctl.text import counted, some


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
        if found := [one for one in meant if is_folder(one)]:
            yield from found
            return


def is_folder(path: Path) -> bool:
    """Whether a name is that of a folder."""
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
        known = [entry.name for entry in root.iterdir() if entry.is_dir()] if is_folder(root) else []
        message, hint = f"there is no run `{name}`", nearest(name, known) or f"`{root}` holds {len(known)} folders"
    return Problem(message, hint=hint)


def missing_of_sweeps(runs: Sequence[RunRecord]) -> list[str]:
    """What the sweeps of these runs have not made at all. Others of their runs are there, finished or not."""
    notes = []
    for folder in dict.fromkeys(run.path.parent for run in runs):
        try:
            cells = read_json(folder / "sweep.json")["cells"]
            missing = [cell for cell in cells if not (folder / cell["run"] / "run.json").is_file()]
            told = ", ".join(f"`{cell['name']}` ({cell['state']})" for cell in missing[:3])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            notes.append(f"{counted(len(missing), 'run')} of the sweep `{folder}` not there: {told}{more}")
    return notes


def without_teachers(runs: Sequence[RunRecord], names: Sequence[str | Path]) -> tuple[list[RunRecord], list[str]]:
    """Without runs that taught others of them and that nobody has named: they lie in the same folder, and are compared with nothing."""
    taught = {Path(str(run.info["teacher_run"])).resolve() for run in runs if run.info.get("teacher_run")}
    taught -= {Path(name).resolve() for name in names}
    left = [str(run.path) for run in runs if run.path.resolve() in taught]
    notes = [f"{some(left)} left out: the teacher{'s' if len(left) > 1 else ''} of others; name a run to have it, too"] if left else []
    return [run for run in runs if str(run.path) not in left], notes
