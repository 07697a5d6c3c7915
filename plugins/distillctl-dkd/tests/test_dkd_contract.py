from distillctl.testing import MethodContract
from distillctl_dkd.plugin import SPEC


class TestDKD(MethodContract):
    spec = SPEC


class TestDKDWithTwoClasses(MethodContract):
    """One other class: its distribution is certain, so `nckd` is zero."""

    spec = SPEC
    options = {"temperature": 1.0, "beta": 0.5}
    num_classes = 2
