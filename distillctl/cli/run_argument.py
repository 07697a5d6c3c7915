"""A run directory on the command line, looked at before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distillctl.errors import Problem, ProfileError
from distillctl.profile.problems import no_file
from distillctl.rundir.directory import ROOT, runs_in

_RUN = ("run.json",)
_STUDENT = (*_RUN, "model.json")


def is_file(path: Path) -> bool:
    """Whether a name is that of a file."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def is_run(path: Path, files: Sequence[str] = _RUN) -> bool:
    """Whether a name is that of a run directory: of a folder with one of these files."""
    return any(is_file(path / name) for name in files)


def not_a_run(run: Path, where: str, files: Sequence[str] = _RUN) -> Problem:
    """What is wrong with a name that is not that of a run directory."""
    message, hint = no_file(run)
    if message.startswith("there is no file"):
        message = f"there is no run directory `{run}`"
    elif "` is not a path: " not in message:
        message, hint = f"`{run}` is not a run directory: it has no `run.json`", ""
    return Problem(message, where=where, hint=_meant(run, files) or hint)


def check_student(run: Path, where: str, *, of_a_file: str = "") -> None:
    """Says at once that there is no such run.

    A run that is not finished passes: who reads its student says more of it.

    of_a_file: the hint where a file stands in the place of the run.

    Raises:
        ProfileError: it is neither a run directory nor a folder with a deployed student.
    """
    if is_run(run, _STUDENT):
        return
    problem = not_a_run(run, where, _STUDENT)
    if of_a_file and not problem.hint and is_file(run):
        problem = Problem(problem.message, problem.where, of_a_file)
    raise ProfileError(problem)


def _meant(run: Path, files: Sequence[str]) -> str:
    """Which run somebody means who leaves out the folder of runs, or names the profile."""
    if is_run(ROOT / run, files):
        return f"did you mean `{ROOT / run}`?"
    if run.suffix == ".toml":
        found = [one.path for one in runs_in(ROOT) if one.path.name.startswith(f"{run.stem}-")]
        return f"the newest run of that profile is `{found[0]}`" if found else f"`distillctl train {run}` makes a run of that profile"
    return ""
