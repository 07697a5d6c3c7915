"""The part of the contract for methods that looks at gradients, for inputs and shapes of all kinds."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from distillctl.errors import RunError
from distillctl.testing.cases import MethodCase, assert_finite_gradients, map_features
from distillctl.testing.tensors import DEGENERATE, GEOMETRIES


class GradientChecks(MethodCase):
    """Tests of the gradients; the attribute is explained in `MethodContract`."""

    refuses: ClassVar[frozenset[str]] = frozenset()

    @pytest.mark.parametrize("size", [1, 2, 7, 64])
    def test_gradients_are_finite(self, size: int) -> None:
        """Gradients of the student's features and of the method's parameters are there and finite."""
        method, inputs = self.ready(size)
        assert_finite_gradients(method, inputs, self.loss(method, inputs))
        if size > 1:
            idle = [name for name, p in method.named_parameters() if p.requires_grad and p.grad is None]
            assert not idle, f"no gradient reaches {idle}"
            unread = [name for name, value in inputs.student.items() if name != "logits" and value.grad is None]
            assert not unread, f"wanted but without a gradient: {unread}"
            if self.phase and not self.phase_has_student:
                return
            grads = [value.grad for value in inputs.student.values() if value.grad is not None]
            assert any(grad.abs().sum() > 0 for grad in grads), "the student learns nothing"

    def test_teacher_gets_no_gradient(self) -> None:
        """Even a teacher with a graph receives none; neither do its weights."""
        setup = self.setup()
        method, inputs = self.build(setup), self.inputs(setup)
        for value in inputs.teacher.values():
            value.requires_grad_()
        torch.autograd.backward(self.loss(method, inputs))
        graded = [name for name, value in inputs.teacher.items() if value.grad is not None and value.grad.abs().sum() > 0]
        assert not graded, f"detach the teacher's {graded}"
        if setup.teacher is not None:
            assert all(p.grad is None for p in setup.teacher.model.parameters())

    @pytest.mark.parametrize("case", DEGENERATE)
    @pytest.mark.parametrize("side", ["student", "teacher", "both"])
    def test_degenerate_features(self, case: str, side: str) -> None:
        """Zero rows, dead channels, constant and equal features: finite value and gradients."""
        method, inputs = self.ready()
        spoil = DEGENERATE[case]
        if side != "teacher":
            inputs = replace(inputs, student=map_features(inputs.student, spoil))
        if side != "student":
            inputs = replace(inputs, teacher=map_features(inputs.teacher, spoil))
        assert_finite_gradients(method, inputs, self.loss(method, inputs))

    def test_student_equal_to_teacher(self) -> None:
        """Finite value and gradients where the student has become the teacher."""
        setup = self.setup("same")
        method, inputs = self.build(setup), self.inputs(setup)
        equal = {name: inputs.teacher.get(name, value).detach().clone().requires_grad_() for name, value in inputs.student.items()}
        inputs = replace(inputs, student=equal)
        assert_finite_gradients(method, inputs, self.loss(method, inputs))

    @pytest.mark.parametrize("geometry", GEOMETRIES)
    def test_shapes_of_all_kinds(self, geometry: str) -> None:
        """Other widths, map sizes and numbers of stages work, or are refused by a clear error when the method is built."""
        setup = self.setup(geometry)
        if geometry in self.refuses:
            with pytest.raises(RunError, match=r"`(stage|last|pooled|tiny_)"):
                self.build(setup)
            return
        method, inputs = self.build(setup), self.inputs(setup)
        assert_finite_gradients(method, inputs, self.loss(method, inputs))
