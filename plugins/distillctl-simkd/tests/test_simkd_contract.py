from distillctl.testing import MethodContract
from distillctl_simkd.plugin import SPEC


class TestSimKD(MethodContract):
    spec = SPEC
