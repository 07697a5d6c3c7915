import pytest

from distillctl.testing import MethodContract
from distillctl_ofd.plugin import SPEC


class TestOFD(MethodContract):
    spec = SPEC

    @pytest.fixture(autouse=True)
    def teacher_with_norms(self, with_norms):
        self.with_norms = with_norms

    def setup(self, geometry="wider"):
        return self.with_norms(super().setup(geometry))


class TestOFDOnOneStage(TestOFD):
    options = {"student_stages": ["stage2:pre"], "teacher_stages": ["stage2:pre"], "kernel_size": 3, "margin_norms": ["bn_stage2_pre"]}
