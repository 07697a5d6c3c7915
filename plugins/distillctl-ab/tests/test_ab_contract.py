from distillctl.testing import MethodContract
from distillctl_ab.plugin import SPEC


class TestAB(MethodContract):
    spec = SPEC
    phase = "init"


class TestABOnOneStage(MethodContract):
    """A small map of the student beside a large one of the teacher, which is pooled."""

    spec = SPEC
    phase = "init"
    options = {"student_stages": ["last"], "teacher_stages": ["stage1:pre"], "margin": 0.5}
