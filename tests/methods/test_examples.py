"""What `show NAME` prints to paste is a table that trains."""

from __future__ import annotations

from typing import Any

import pytest

from distillctl.cli.description import description
from distillctl.plugin.registry import Registry

REGISTRY = Registry.load()
METHODS = tuple(spec.qualified for spec in REGISTRY.methods)
OPTIMIZERS = tuple(spec.qualified for spec in REGISTRY.optimizers)


def test_there_are_at_least_28_methods() -> None:
    assert len(METHODS) - 1 >= 28, "without `none`"
    assert "dot" in OPTIMIZERS


@pytest.mark.parametrize("name", METHODS)
def test_example_of_a_method(bench: Any, name: str) -> None:
    spec = bench.registry.methods.get(name)
    shown = description(bench.registry.methods, spec)
    assert spec.name == "none" or shown["formula"]
    teacher = "cifar/resnet8" if spec.needs_teacher else None
    experiment, terms = bench.run(bench.profile(shown["example"], "cifar/resnet8", teacher, extra="dropout = 0.2"), steps=3)
    experiment.close()
    assert any(key.partition(".")[0] == spec.name for part in terms.values() for key in part) == (spec.name != "none" and not spec.relabels)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_example_of_an_optimizer(bench: Any, name: str) -> None:
    example = description(bench.registry.optimizers, bench.registry.optimizers.get(name))["example"]
    profile = bench.profile('[method]\nname = "kd"', "cifar/resnet8", "cifar/resnet14", optimizer=example)
    experiment, terms = bench.run(profile, steps=3)
    experiment.close()
    assert set(terms["main"]) == {"task", "kd"}
