from distillctl.testing import MethodContract
from distillctl_sdd.plugin import SPEC


class TestSDD(MethodContract):
    spec = SPEC


class TestSDDOnDKD(MethodContract):
    spec = SPEC
    options = {"base": "dkd", "scales": [1, 2], "beta": 2.0}


class TestSDDOnNKD(MethodContract):
    spec = SPEC
    options = {"base": "nkd", "temperature": 3.0, "gamma": 3.5, "complementary_weight": 4.0}
