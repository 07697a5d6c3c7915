"""What a shell offers while somebody types: names of plugin objects and of runs. Where we offer nothing, the shell offers files.

typer prints the script that asks us (`--install-completion`, `--show-completion`): at every press of the tab key the shell runs
`distillctl` with the words so far in the environment.
"""

from __future__ import annotations

from typing import Any

from distillctl.plugin.catalog import Catalog
from distillctl.plugin.registry import Registry
from distillctl.rundir.directory import ROOT, runs_in


def methods(incomplete: str) -> list[tuple[str, str]]:
    """The methods whose names begin so, with what they do."""
    return _of(Registry.load().methods, incomplete)


def objects(incomplete: str) -> list[tuple[str, str]]:
    """The methods, models, data sets and optimizers whose names begin so."""
    registry = Registry.load()
    catalogs: list[Catalog[Any]] = [registry.methods, registry.models, registry.datasets, registry.optimizers]
    return [found for catalog in catalogs for found in _of(catalog, incomplete)]


def packages(incomplete: str) -> list[str]:
    """The packages with plugins whose names begin so."""
    return sorted({plugin.package for plugin in Registry.load().plugins if plugin.package.startswith(incomplete)})


def runs(incomplete: str) -> list[str]:
    """The runs below `runs` whose paths begin so, the newest first."""
    return [path for run in runs_in(ROOT) if (path := str(run.path)).startswith(incomplete)]


def _of(catalog: Catalog[Any], incomplete: str) -> list[tuple[str, str]]:
    return [(name, spec.summary) for spec in catalog if (name := catalog.shown_name(spec)).startswith(incomplete)]
