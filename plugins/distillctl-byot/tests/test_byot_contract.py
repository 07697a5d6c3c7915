from __future__ import annotations

from typing import ClassVar

import pytest

from distillctl.testing import MethodContract
from distillctl.testing.cases import assert_finite_gradients
from distillctl_byot.plugin import SPEC


class TestBYOT(MethodContract):
    spec = SPEC

    @pytest.mark.parametrize("size", [1, 2, 7, 64])
    def test_gradients_are_finite(self, size: int) -> None:
        """As in the contract, but that what teaches, the end of the network, must have no gradient at all, not even one of zero."""
        setup = self.setup()
        method, inputs = self.build(setup), self.inputs(setup, size)
        assert_finite_gradients(method, inputs, self.loss(method, inputs))
        assert all(p.grad is not None for p in method.parameters())
        teaching = {"logits", "pooled", list(inputs.student)[-3]}  # the deepest stage stands before `pooled` and `logits`
        assert len(inputs.student) == 5
        for name, value in inputs.student.items():
            assert (value.grad is None) == (name in teaching), name
            assert value.grad is None or size == 1 or value.grad.abs().sum() > 0, name


class TestBYOTWithSoftTargetsAlone(TestBYOT):
    """No labels, features by their mean, and stages before their last ReLU."""

    options: ClassVar = {
        "student_stages": ["stages:pre"],
        "alpha": 1.0,
        "temperature": 1.0,
        "beta": 0.1,
        "feature_reduction": "mean",
    }
