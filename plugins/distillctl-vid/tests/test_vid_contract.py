from __future__ import annotations

from typing import ClassVar

from distillctl.testing import MethodContract
from distillctl_vid.plugin import SPEC


class TestVID(MethodContract):
    spec = SPEC


class TestVIDWithNamedStages(MethodContract):
    spec = SPEC
    options: ClassVar = {"student_stages": ["stage1", "last"], "teacher_stages": ["stage2", "last"]}
