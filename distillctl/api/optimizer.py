"""The base of optimizers that are given two gradients."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer


class SeparateGradients(Optimizer):
    """An optimizer that is given the gradients of the label loss and of the methods' terms apart.

    Before `step`, `p.grad` is the gradient of the weighted label loss, or None where it does not reach p, and
    `distillation_grads[p]` that of the weighted sum of all terms of all methods; a parameter that they do not reach is missing. Both are
    unscaled, and clipped together. The engine empties them after the step.
    """

    distillation_grads: dict[Tensor, Tensor]


__all__ = ["SeparateGradients"]
