from __future__ import annotations

from typing import ClassVar

from distillctl.testing import MethodContract
from distillctl_pefd.plugin import SPEC


class TestPEFD(MethodContract):
    spec = SPEC


class TestPEFDOnMaps(MethodContract):
    spec = SPEC
    options: ClassVar = {"projectors": 1, "student_stage": "last", "teacher_stage": "stage2"}
