from __future__ import annotations

from typing import ClassVar

from distillctl.testing import MethodContract
from distillctl_mgd.plugin import register_method


class TestMGD(MethodContract):
    spec = register_method()
    duplication_factor = None  # every image draws its own mask
    permutation_invariant = False


class TestMGDWithoutMask(MethodContract):
    """λ = 0 takes the randomness away: a mean over the batch that does not know the order."""

    spec = register_method()
    options: ClassVar = {"mask": "spatial", "mask_ratio": 0.0, "normalize": "mean", "student_stage": "stage2", "teacher_stage": "stage2"}
