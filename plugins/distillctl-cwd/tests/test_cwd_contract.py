from distillctl.testing import MethodContract
from distillctl_cwd.plugin import SPEC


class TestCWD(MethodContract):
    """Of a student's last map of 1×1 there is one position alone."""

    spec = SPEC
    refuses = frozenset({"teacher_maps_larger"})


class TestCWDOfAllStages(MethodContract):
    spec = SPEC
    options = {"student_stages": ["stages"], "teacher_stages": ["stages"], "temperature": 4.0}
