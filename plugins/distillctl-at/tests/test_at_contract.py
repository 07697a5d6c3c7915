from __future__ import annotations

from typing import ClassVar

from distillctl.testing import MethodContract
from distillctl_at.plugin import SPEC


class TestAT(MethodContract):
    spec = SPEC


class TestATPaper(MethodContract):
    spec = SPEC
    options: ClassVar = {"mode": "paper", "power": 3.0}
