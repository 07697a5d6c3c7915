from distillctl.builtin.methods import register_method
from distillctl.testing import MethodContract
from distillctl_dkd.plugin import SPEC as DKD
from distillctl_lskd.plugin import SPEC

KD = next(spec for spec in register_method() if spec.name == "kd")


class TestLSKDAroundKD(MethodContract):
    spec = SPEC
    inner_spec = KD


class TestLSKDAroundDKD(MethodContract):
    spec = SPEC
    options = {"temperature": 3.0}
    inner_spec = DKD
