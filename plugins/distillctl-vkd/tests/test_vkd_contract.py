from distillctl.testing import MethodContract
from distillctl_vkd.plugin import SPEC


class TestVkD(MethodContract):
    spec = SPEC


class TestVkDOnMaps(MethodContract):
    spec = SPEC
    options = {"student_stage": "last", "teacher_stage": "stage2"}
