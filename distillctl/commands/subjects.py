"""What names on a command line mean that measures models: models, patterns, runs. Without torch, so that a typo is told at once."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from distillctl.errors import DistillError, Problem, ProfileError
from distillctl.plugin.registry import Registry
from distillctl.profile.problems import no_run


@dataclass(frozen=True)
class Subject:
    """What is measured: a model by its name, or the student in a run directory."""

    name: str
    run: Path | None = None


def subjects(arguments: Sequence[str], registry: Registry) -> list[Subject]:
    """What the arguments mean, each once: names of models, patterns for them or for run directories, run directories.

    Raises:
        ProfileError: some mean nothing; all of these are told.
    """
    found: dict[Subject, None] = {}
    problems: list[Problem] = []
    for argument in arguments:
        try:
            found |= dict.fromkeys(_meant(argument, registry))
        except DistillError as error:
            problems += error.problems
    if problems:
        raise ProfileError(problems)
    return list(found)


def _meant(argument: str, registry: Registry) -> list[Subject]:
    if _is_run(argument):
        return [Subject(argument, Path(argument))]
    if not set("*?[") & set(argument):
        return [Subject(_model(argument, registry))]
    models, pattern = registry.models, argument.lower()
    names = [(models.shown_name(spec), spec.qualified) for spec in models]
    names += [(name, name) for family in models.families.values() for name in (f"{family.name}/{own}" for own in family.names())]
    found = [Subject(name) for name, qualified in names if fnmatchcase(name.lower(), pattern) or fnmatchcase(qualified.lower(), pattern)]
    found += [Subject(path, Path(path)) for path in sorted(glob.glob(argument)) if _is_run(path)]
    if not found:
        raise ProfileError(f"no model and no run is called like `{argument}`", hint="`distillctl list-models` lists the models")
    return found


def _model(name: str, registry: Registry) -> str:
    """The shortest name of a model.

    Raises:
        DistillError: there is none, or the name looks like that of a run that is not there.
    """
    if name not in registry.models and (problem := no_run(name)):
        raise ProfileError(problem)
    return registry.models.shown_name(registry.models.get(name))


def _is_run(path: str) -> bool:
    try:
        return Path(path, "run.json").is_file()
    except (OSError, ValueError):
        return False
