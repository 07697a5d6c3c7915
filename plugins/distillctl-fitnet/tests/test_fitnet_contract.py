from __future__ import annotations

from typing import ClassVar

from distillctl.testing import MethodContract
from distillctl_fitnet.plugin import SPEC


class TestFitNet(MethodContract):
    """The made-up hint has negative values, so that `auto` takes no ReLU."""

    spec = SPEC


class TestFitNetWithReLU(MethodContract):
    spec = SPEC
    options: ClassVar = {"activation": "relu", "student_stage": "last", "teacher_stage": "last"}
