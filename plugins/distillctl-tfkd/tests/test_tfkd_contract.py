from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from distillctl import Setup
from distillctl.testing import MethodContract
from distillctl_tfkd.plugin import TFKD, TFKD_SELF


class TestTfKD(MethodContract):
    spec = TFKD


class TestTfKDByThePapersFormula(MethodContract):
    spec = TFKD
    options: ClassVar = {"soften": "log_probabilities", "student_temperature": 20.0, "correct_probability": 0.9}
    num_classes = 2


class TestTfKDSelf(MethodContract):
    spec = TFKD_SELF

    def setup(self, geometry: str = "wider") -> Setup:
        """Both sides have one name, as a network and its earlier training have."""
        setup = super().setup(geometry)
        return replace(setup, teacher=replace(setup.require_teacher(), name=setup.student.name))
