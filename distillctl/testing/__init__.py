"""For authors of plugins: contracts to inherit from, tiny models, made-up inputs.

    from distillctl.testing import MethodContract
    from my_package.plugin import SPEC

    class TestContract(MethodContract):
        spec = SPEC

A contract is a pytest class whose tests every method, model or data set must pass. Its class attributes say what is
special about yours. pytest is needed only here, not by distillctl itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distillctl.testing.cases import MethodCase, options_of
    from distillctl.testing.datasets import DatasetContract
    from distillctl.testing.docs import options_table
    from distillctl.testing.methods import MethodContract
    from distillctl.testing.models import ModelContract
    from distillctl.testing.tasks import TaskContract
    from distillctl.testing.tensors import make_batch, make_features, make_progress, make_setup, make_side, make_task
    from distillctl.testing.tiny_models import TINY_CNN, TINY_MODELS, TINY_VIT, TINY_WIDE
    from distillctl.testing.trackers import TrackerContract

_WHERE = {
    "distillctl.testing.cases": ("MethodCase", "options_of"),
    "distillctl.testing.datasets": ("DatasetContract",),
    "distillctl.testing.docs": ("options_table",),
    "distillctl.testing.methods": ("MethodContract",),
    "distillctl.testing.models": ("ModelContract",),
    "distillctl.testing.tasks": ("TaskContract",),
    "distillctl.testing.tensors": ("make_batch", "make_features", "make_progress", "make_setup", "make_side", "make_task"),
    "distillctl.testing.tiny_models": ("TINY_CNN", "TINY_MODELS", "TINY_VIT", "TINY_WIDE"),
    "distillctl.testing.trackers": ("TrackerContract",),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "TINY_CNN", "TINY_MODELS", "TINY_VIT", "TINY_WIDE", "DatasetContract", "MethodCase", "MethodContract", "ModelContract",
    "TaskContract", "TrackerContract", "make_batch", "make_features", "make_progress", "make_setup", "make_side", "make_task",
    "options_of", "options_table",
]  # fmt: skip

try:  # so that a failing `assert` in a contract shows its values
    import pytest
except ImportError:  # the tiny models are of use without pytest
    pass
else:
    _CHECKS = ("cases", "datasets", "declarations", "gradient_checks", "models", "state_checks", "tasks", "trackers", "value_checks")
    pytest.register_assert_rewrite(*(f"distillctl.testing.{part}" for part in _CHECKS))


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module 'distillctl.testing' has no attribute {name!r}")
