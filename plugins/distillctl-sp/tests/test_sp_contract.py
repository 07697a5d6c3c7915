from distillctl.testing import MethodContract
from distillctl_sp.plugin import SPEC


class TestSP(MethodContract):
    spec = SPEC
    duplication_factor = 0.5


class TestSPOfTheL1Norm(MethodContract):
    """All stages, and rows as two peers normalise them."""

    spec = SPEC
    options = {"student_stages": ["stages"], "teacher_stages": ["stages"], "row_norm": "l1"}
    duplication_factor = 0.25
