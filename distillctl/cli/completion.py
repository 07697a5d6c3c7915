"""What a shell offers while somebody types: names of plugin objects and of runs. Where we offer nothing, the shell offers files.

typer prints the script that asks us (`--install-completion`, `--show-completion`): at every press of the tab key the shell runs
`distillctl` with the words so far in the environment.
"""

from __future__ import annotations

from typing import Any

from distillctl.plugin.catalog import Catalog
from distillctl.plugin.registry import Registry
from distillctl.rundir.directory import ROOT, runs_in


def methods() -> list[tuple[str, str]]:
    """The methods, with what they do. typer takes those that begin as the word does."""
    return _of(Registry.load().methods)


def models() -> list[tuple[str, str]]:
    """The models."""
    return _of(Registry.load().models)


def trackers() -> list[tuple[str, str]]:
    """The trackers."""
    return _of(Registry.load().trackers)


def objects() -> list[tuple[str, str]]:
    """The methods, models, data sets and optimizers."""
    registry = Registry.load()
    catalogs: list[Catalog[Any]] = [registry.methods, registry.models, registry.datasets, registry.optimizers]
    return [found for catalog in catalogs for found in _of(catalog)]


def objects_and_runs() -> list[tuple[str, str]]:
    """Those, and the runs below `runs`."""
    return objects() + [(path, "") for path in runs()]


def packages() -> list[str]:
    """The packages with plugins."""
    return sorted({plugin.package for plugin in Registry.load().plugins})


def runs() -> list[str]:
    """The paths of the runs below `runs`, the newest first."""
    return [str(run.path) for run in runs_in(ROOT)]


def models_and_runs() -> list[tuple[str, str]]:
    """The models, and the runs below `runs`."""
    return _of(Registry.load().models) + [(path, "") for path in runs()]


def _of(catalog: Catalog[Any]) -> list[tuple[str, str]]:
    return [(catalog.shown_name(spec), spec.summary) for spec in catalog]
