from __future__ import annotations

from typing import ClassVar

from distillctl.testing import MethodContract
from distillctl_crd.plugin import register_method


class TestCRD(MethodContract):
    spec = register_method()
    options: ClassVar = {"negatives": 32, "feat_dim": 16}
    duplication_factor = None  # every image draws its own negatives
    permutation_invariant = False


class TestCRDWithALargeBank(MethodContract):
    """So few negatives that rows are gathered instead of all being scored."""

    spec = register_method()
    options: ClassVar = {"negatives": 5, "feat_dim": 16, "temperature": 0.1, "momentum": 0.9}
    duplication_factor = None
    permutation_invariant = False
