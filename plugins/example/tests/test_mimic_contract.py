from distillctl.testing import MethodContract
from distillctl_example.plugin import SPEC


class TestMimic(MethodContract):
    spec = SPEC


class TestMimicCentred(MethodContract):
    spec = SPEC
    options = {"centred": True}
