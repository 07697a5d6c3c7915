"""The contract that every distillation method must keep: `MethodContract`."""

from __future__ import annotations

from distillctl.testing.capture_checks import CaptureChecks
from distillctl.testing.declarations import DeclarationChecks
from distillctl.testing.gradient_checks import GradientChecks
from distillctl.testing.state_checks import StateChecks
from distillctl.testing.value_checks import ValueChecks


class MethodContract(DeclarationChecks, ValueChecks, GradientChecks, StateChecks, CaptureChecks):
    """Inherit, set `spec`, and say in the attributes below what is special about your method.

    duplication_factor: factor of the loss when every sample of a batch is fed twice: 1 for means over the batch, 2 for
        sums. None if the method compares samples with each other or draws at random; the test then makes sure that no
        simple factor holds, and that the docstrings say why.
    permutation_invariant: False if the order of the samples matters (random masks, random negatives).
    refuses: names of shapes (`distillctl.testing.tensors.GEOMETRIES`) that the method cannot take; it must then raise a
        `RunError` that names a feature or a model, when it is built.
    half_tolerance: relative difference allowed between half and full precision of the features.
    """
