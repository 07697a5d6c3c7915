import pytest

from distillctl.testing import MethodContract
from distillctl_rkd.plugin import SPEC


class TestRKD(MethodContract):
    spec = SPEC
    duplication_factor = None  # the two copies of a sample are a pair without a distance

    @pytest.mark.parametrize("size", [1, 3, 7, 64])
    def test_gradients_are_finite(self, size):
        """Two samples teach nothing: see `test_two_samples_teach_nothing`."""
        super().test_gradients_are_finite(size)


class TestRKDInChunks(TestRKD):
    """Squared distances of flattened maps, and angles in pieces that do not divide the batch."""

    options = {"squared": True, "chunk": 3, "student_stage": "last", "teacher_stage": "stage2"}
