from __future__ import annotations

from typing import ClassVar

from distillctl.testing import MethodContract
from distillctl_nst.plugin import SPEC


class TestNST(MethodContract):
    spec = SPEC


class TestNSTGaussian(MethodContract):
    spec = SPEC
    options: ClassVar = {"kernel": "rbf"}
