"""The names that `import distillctl` offers."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import get_origin

import pytest

import distillctl
import distillctl.testing

LAZY = {"distillctl": distillctl, "distillctl.testing": distillctl.testing}


@pytest.mark.parametrize("module", LAZY.values(), ids=LAZY)
def test_all_is_what_is_offered(module):
    offered = [name for names in module._WHERE.values() for name in names]
    assert len(offered) == len(set(offered))
    assert sorted(set(module.__all__) - {"__version__"}) == sorted(offered)
    assert len(module.__all__) == len(set(module.__all__))


@pytest.mark.parametrize("module", LAZY.values(), ids=LAZY)
def test_type_checkers_see_the_same_names(module):
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {node.module: tuple(alias.name for alias in node.names) for node in block.body if isinstance(node, ast.ImportFrom)}
    assert {m: sorted(names) for m, names in seen.items()} == {m: sorted(names) for m, names in module._WHERE.items()}


@pytest.mark.parametrize("module", LAZY.values(), ids=LAZY)
def test_every_name_is_there(module):
    for where, names in module._WHERE.items():
        for name in names:
            assert getattr(module, name) is getattr(import_module(where), name)


def _has_docs(name):
    """What is only a type, such as `FileAugment`, has no docstring."""
    thing = getattr(distillctl, name)
    return callable(thing) and get_origin(thing) is None


def test_public_objects_are_documented():
    undocumented = [n for n in distillctl.__all__ if _has_docs(n) and not getattr(distillctl, n).__doc__]
    assert not undocumented


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Distiller'"):
        _ = distillctl.Distiller


def test_importing_costs_no_torch():
    code = "import sys, distillctl; print([m for m in ('torch', 'pydantic', 'pluggy', 'rich', 'typer') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_declaring_costs_no_torch():
    names = "MethodSpec, ModelSpec, DatasetSpec, OptimizerSpec, Options, hookimpl"
    code = f"import sys; from distillctl import {names}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert distillctl.__version__ == version("distillctl")
