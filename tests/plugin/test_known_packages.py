"""The names that errors offer to install are those that the packages of this repository have."""

from __future__ import annotations

from pathlib import Path

from distillctl.plugin.known_packages import PACKAGES
from distillctl.plugin.registry import Registry

OURS = {p.parent.name for p in (Path(__file__).parents[2] / "plugins").glob("distillctl-*/pyproject.toml")}


def test_every_name_is_known_and_every_known_name_is_there():
    registry = Registry.load()
    for catalog in (registry.methods, registry.models, registry.datasets, registry.optimizers):
        ours = [(catalog.plugin(spec).package, spec) for spec in catalog if catalog.plugin(spec).package in OURS]
        there = {(package, name) for package, spec in ours for name in (spec.qualified, catalog.shown_name(spec), *spec.aliases)}
        assert {(package, name) for package, names in PACKAGES[catalog.kind].items() for name in names} == there
