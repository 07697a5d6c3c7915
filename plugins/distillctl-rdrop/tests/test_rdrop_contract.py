from __future__ import annotations

from typing import ClassVar

from distillctl.testing import MethodContract
from distillctl_rdrop.plugin import SPEC


class TestRDrop(MethodContract):
    spec = SPEC


class TestRDropSummed(MethodContract):
    spec = SPEC
    options: ClassVar = {"reduction": "sum"}
    duplication_factor = 2.0
