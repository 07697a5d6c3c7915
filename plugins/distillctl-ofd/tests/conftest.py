from collections.abc import Callable
from dataclasses import replace

import pytest
from torch import nn

from distillctl import Setup


@pytest.fixture(scope="session")
def with_norms() -> Callable[[Setup], Setup]:
    """Gives the teacher of a setup a batch normalisation for each of its maps."""
    return add_norms


def add_norms(setup: Setup) -> Setup:
    teacher = setup.require_teacher()
    model = nn.Module()
    model.add_module("fc", teacher.classifier)
    paths = {}
    for name, shape in teacher.shapes.items():
        paths[name] = f"bn_{name.replace(':', '_')}"
        norm = nn.BatchNorm2d(shape[0])
        nn.init.uniform_(norm.weight, 0.2, 2.0)
        nn.init.uniform_(norm.bias, -2.0, 2.0)
        model.add_module(paths[name], norm)
    return replace(setup, teacher=replace(teacher, model=model, paths=paths))
