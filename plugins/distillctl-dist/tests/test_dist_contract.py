from distillctl.testing import MethodContract
from distillctl_dist.plugin import SPEC


class TestDIST(MethodContract):
    spec = SPEC


class TestDISTBetweenSamplesAlone(MethodContract):
    """What a batch of one does not have."""

    spec = SPEC
    options = {"temperature": 4.0, "beta": 0.0}
