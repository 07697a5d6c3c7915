from distillctl.testing import MethodContract
from distillctl_cc.plugin import SPEC


class TestCC(MethodContract):
    spec = SPEC
    duplication_factor = None  # pairs of neighbours
    permutation_invariant = False


class TestCCOfTheKernel(MethodContract):
    spec = SPEC
    options = {"variant": "kernel"}


class TestCCOfTheKernelOfMaps(MethodContract):
    """The norm instead of its square; flattened maps of unequal sizes."""

    spec = SPEC
    options = {"variant": "kernel", "order": 3, "squared": False, "student_stage": "last", "teacher_stage": "stage2"}
    duplication_factor = 0.5
