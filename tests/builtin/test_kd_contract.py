from distillctl.builtin.methods import register_method
from distillctl.testing import MethodContract

KD = next(spec for spec in register_method() if spec.name == "kd")


class TestKD(MethodContract):
    spec = KD
    plugin_module = "distillctl.builtin.methods"
    has_readme = False


class TestKDWithTwoTemperatures(MethodContract):
    spec = KD
    options = {"temperature": {"teacher": 2.0, "student": 5.0}}
    plugin_module = "distillctl.builtin.methods"
    has_readme = False
