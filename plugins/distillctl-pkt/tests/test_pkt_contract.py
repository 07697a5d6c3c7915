from distillctl.testing import MethodContract
from distillctl_pkt.plugin import SPEC


class TestPKT(MethodContract):
    spec = SPEC
    duplication_factor = 0.5


class TestPKTOfMaps(MethodContract):
    """Flattened maps of unequal sizes."""

    spec = SPEC
    options = {"student_stage": "last", "teacher_stage": "stage2"}
    duplication_factor = 0.5
