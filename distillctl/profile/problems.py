"""Problems of a profile: collected in the order in which they are found, and hints with the names that are nearest to a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from distillctl.errors import Problem, ProfileError
from distillctl.rundir.directory import ROOT
from distillctl.text import printable

MAX_PROBLEMS = 100
"""So many problems are told; a file with more is not a profile, and finding all of them would take long."""
MAX_MESSAGE = 4000
"""Characters of a message or hint."""


class Problems:
    """What was found so far, each problem once. Nothing is taken out again."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, problem: Problem) -> None:
        """Notes a problem.

        Raises:
            ProfileError: there are so many problems already that the rest is not looked for.
        """
        if problem in self.found:
            return
        if len(self.found) >= MAX_PROBLEMS:
            raise ProfileError([*self.found, Problem(f"there are more than {MAX_PROBLEMS} problems, and the rest was not looked for")])
        self.found.append(problem)

    def add_all(self, problems: Iterable[Problem]) -> None:
        """Notes the problems of another file, however many there are."""
        self.found += [p for p in problems if p not in self.found]


def bounded(message: str, where: str = "", hint: str = "") -> Problem:
    """A problem whose texts may come from anywhere: they are cut, and nothing in them moves a terminal's cursor."""
    return Problem(printable(_cut(message)), printable(where), printable(_cut(hint)))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 3] + "..."


def nearest(name: str, names: Iterable[str]) -> str:
    """`did you mean …?`, or nothing if no name is near."""
    lowered = {n.lower(): n for n in names}
    found = [lowered[n] for n in difflib.get_close_matches(name.lower(), list(lowered), 1, 0.6)]
    return f"did you mean `{found[0]}`?" if found else ""


def no_file(path: Path) -> tuple[str, str]:
    """What is in the place where a file should be, as a sentence, and a hint."""
    try:
        if path.is_dir():
            return f"`{path}` is a directory, not a file", ""
        if path.is_symlink() and not path.exists():
            return f"`{path}` is a link that leads nowhere", f"it names `{path.readlink()}`"
        if path.exists():
            return f"`{path}` is a pipe or device, not a file", ""
        return f"there is no file `{path}`", near_files(path)
    except (OSError, ValueError) as error:
        return f"`{str(path)[:80]}` is not a path: {(getattr(error, 'strerror', None) or str(error)).lower()}", ""


def no_run(name: str) -> Problem | None:
    """What is said of a name that means a run directory that is not there; None where it may mean something else."""
    path = Path(name)
    try:
        if (ROOT / path / "run.json").is_file():
            return Problem(f"there is no run directory `{name}`", hint=f"did you mean `{ROOT / path}`?")
        if path.is_dir():
            return Problem(f"`{name}` is not a run directory: it has no `run.json`")
    except (OSError, ValueError):  # a name that no file can have
        return None
    return Problem(f"there is no run directory `{name}`", hint=near_files(path)) if ROOT in path.parents else None


def near_files(path: Path, suffix: str = "") -> str:
    """A hint with the files whose names are nearest to that of a missing one, or the first part of the path that is missing."""
    folder = path.parent
    try:
        names = [e.name for _, e in zip(range(2000), folder.iterdir(), strict=False) if e.name.endswith(suffix)]
    except OSError:
        missing = next((p for p in reversed(folder.parents) if not p.exists()), folder)
        return printable(f"the folder `{missing}` does not exist")
    found = difflib.get_close_matches(path.name, names, 3, 0.5)
    return printable("did you mean " + " or ".join(f"`{folder / n}`" for n in found) + "?") if found else ""
