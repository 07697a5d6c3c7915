from distillctl.builtin.methods import register_method
from distillctl.testing import MethodContract
from distillctl_ctkd.plugin import SPEC
from distillctl_dkd.plugin import SPEC as DKD

KD = next(spec for spec in register_method() if spec.name == "kd")


class TestCTKDAroundKD(MethodContract):
    spec = SPEC
    inner_spec = KD


class TestCTKDAroundDKD(MethodContract):
    spec = SPEC
    options = {"t_start": 2.0, "t_end": 6.0, "loops": 5.0, "weight_decay": 5e-4}
    inner_spec = DKD


class TestCTKDByInstance(MethodContract):
    spec = SPEC
    options = {"form": "instance", "hidden": 8}
    inner_spec = DKD
