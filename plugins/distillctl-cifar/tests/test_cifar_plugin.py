"""What the package declares, and that declaring costs no torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from distillctl.plugin.registry import Registry, load
from distillctl.testing.docs import options_table
from distillctl_cifar import plugin
from distillctl_cifar.options import CIFAR10Options, CIFAR100Options


def test_the_registry_takes_everything():
    registry = Registry.load({"DISTILLCTL_PLUGINS": "cifar"})
    assert not [p.problem for p in registry.plugins if p.problem]
    assert sum(s.namespace == "cifar" for s in registry.models) == 26
    assert [s.name for s in registry.datasets if s.implementation.startswith("distillctl_cifar")] == ["cifar10", "cifar100"]
    assert registry.models.get("resnet8x4") is registry.models.get("cifar/resnet8x4")


def test_what_specs_name_exists():
    for spec in (*plugin.register_model(), *plugin.register_dataset()):
        assert callable(load(spec.implementation, spec.name))
    tables = [load(spec.options, spec.name) for spec in plugin.register_dataset()]
    assert tables == [CIFAR10Options, CIFAR100Options]
    assert [str(table().root) for table in tables] == ["data/cifar10", "data/cifar100"]


def imported(statement, module):
    code = f"import sys; {statement}; print(any(m.split('.')[0] == {module!r} for m in sys.modules))"
    return {"True": True, "False": False}[
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    ]


def test_declaring_imports_no_torch():
    statement = "import distillctl_cifar.plugin as p; p.register_model(); p.register_dataset()"
    assert not imported(statement, "torch")
    assert not imported(statement, "pydantic")
    assert not imported("import distillctl_cifar.options", "torch")


@pytest.mark.slow
def test_the_models_need_nothing_of_distillctl():
    assert not imported("from distillctl_cifar.models import resnet8x4", "distillctl")


def test_the_readme_is_current():
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for spec in plugin.register_dataset():
        assert f"Options of `{spec.name}`:\n\n{options_table(spec)}\n" in text
    for spec in plugin.register_model():
        assert f"`{spec.name}`" in text
