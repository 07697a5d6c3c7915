from distillctl.testing import MethodContract
from distillctl_ofa.plugin import SPEC


class TestOFA(MethodContract):
    spec = SPEC


class TestOFAWithoutBranches(MethodContract):
    """The enhanced target alone, with a larger exponent."""

    spec = SPEC
    options = {"eps": 1.5, "branch_weight": 0.0}
