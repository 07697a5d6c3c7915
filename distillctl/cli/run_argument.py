"""A run directory on the command line, looked at before torch is imported."""

from __future__ import annotations

import os
from pathlib import Path

from distillctl.errors import ProfileError
from distillctl.profile.problems import no_file
from distillctl.rundir.directory import ROOT, runs_in


def check_student(run: Path, where: str) -> None:
    """Says at once that there is no such run.

    A run that is not finished passes: who reads its student says more of it.

    Raises:
        ProfileError: it is neither a run directory nor a folder with a deployed student.
    """
    if _is_run(run):
        return
    message, hint = no_file(run)
    if message.startswith("there is no file"):
        message = f"there is no run directory `{run}`"
    elif "` is not a path: " not in message:
        message, hint = f"`{run}` is not a run directory: it has no `run.json`", ""
    if os.path.isfile(run) and run.suffix != ".toml":
        hint = "the run comes first, and then the images"
    raise ProfileError(message, where=where, hint=_meant(run) or hint)


def _is_run(path: Path) -> bool:
    return any(os.path.isfile(path / name) for name in ("run.json", "model.json"))


def _meant(run: Path) -> str:
    """Which run somebody means who leaves out the folder of runs, or names the profile."""
    if _is_run(ROOT / run):
        return f"did you mean `{ROOT / run}`?"
    if run.suffix == ".toml":
        found = [one.path for one in runs_in(ROOT) if one.path.name.startswith(f"{run.stem}-")]
        return f"the newest run of that profile is `{found[0]}`" if found else f"`distillctl train {run}` makes a run of that profile"
    return ""
