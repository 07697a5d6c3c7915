from typing import ClassVar

from distillctl.testing import MethodContract
from distillctl_fitnet.plugin import SPEC as FITNET
from distillctl_mgd.plugin import register_method
from distillctl_unitscale.plugin import SPEC


class TestUnitScaleAroundFitNet(MethodContract):
    spec = SPEC
    inner_spec = FITNET


class TestUnitScaleAroundMGD(MethodContract):
    """A method that chooses its own precision; without a mask, which each image would draw."""

    spec = SPEC
    inner_spec = register_method()
    inner_options: ClassVar = {"mask": "spatial", "mask_ratio": 0.0, "normalize": "mean"}
