from __future__ import annotations

from typing import ClassVar

from distillctl import Setup
from distillctl.testing import MethodContract
from distillctl.testing.tensors import GEOMETRIES
from distillctl_kdsvd.plugin import SPEC


class TestKDSVD(MethodContract):
    """The paper's variant, which needs equal channels."""

    spec = SPEC
    refuses: ClassVar = frozenset(GEOMETRIES) - {"same"}

    def setup(self, geometry: str = "same") -> Setup:
        return super().setup(geometry)


class TestKDSVDWidth(MethodContract):
    spec = SPEC
    options: ClassVar = {"variant": "width"}
