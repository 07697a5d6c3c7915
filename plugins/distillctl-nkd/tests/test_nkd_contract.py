from distillctl.testing import MethodContract
from distillctl_nkd.plugin import SPEC


class TestNKD(MethodContract):
    spec = SPEC


class TestNKDWithTwoClasses(MethodContract):
    """One other class: its distribution is certain, so `other` is zero and the target class alone teaches."""

    spec = SPEC
    options = {"temperature": 3.0, "gamma": 3.5}
    num_classes = 2
