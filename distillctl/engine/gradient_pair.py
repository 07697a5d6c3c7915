"""Two gradients for every parameter: of the label loss, and of what the methods add."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distillctl.api.optimizer import SeparateGradients
from distillctl.distributed.process_group import ProcessGroup


class GradientPair:
    """Stands for an optimizer of this kind wherever its gradients are unscaled, clipped and used.

    A gradient scaler looks at `param_groups`: here it finds each parameter twice, once with either gradient, so that both are
    unscaled by the same factor, and a step is left out if one of them is not finite.
    """

    def __init__(self, optimizer: SeparateGradients) -> None:
        self.optimizer = optimizer
        self.parameters: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
        self._twins = [p.detach() for p in self.parameters]  # other objects on the same memory, which carry the second gradient

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """All that has a gradient."""
        return [{"params": [*self.parameters, *self._twins]}]

    def backward(self, task: Tensor, distillation: Tensor) -> None:
        """Adds both gradients of two (scaled) losses with one graph; either may have none."""
        if distillation.requires_grad:
            grads = torch.autograd.grad(distillation, self.parameters, retain_graph=task.requires_grad, allow_unused=True)
            taken: set[int] = set()
            for twin, grad in zip(self._twins, grads, strict=True):
                # Both are changed in place later: the gradient of a plain sum is one number seen many times, and parameters that are
                # added to each other may be given one tensor.
                if grad is not None and (0 in grad.stride() or grad.data_ptr() in taken):
                    grad = grad.clone(memory_format=torch.contiguous_format)
                if grad is not None:
                    taken.add(grad.data_ptr())
                    twin.grad = grad if twin.grad is None else twin.grad + grad
        if task.requires_grad:
            torch.autograd.backward(task)

    @property
    def second(self) -> list[Tensor | None]:
        """The gradients of what the methods add, in the order of the parameters."""
        return [twin.grad for twin in self._twins]

    def average(self, processes: ProcessGroup) -> None:
        """Replaces both gradients by their means over all processes. DistributedDataParallel does not see those of `autograd.grad`."""
        for tensors in (self.parameters, self._twins):
            for tensor, mean in zip(tensors, processes.mean_gradients([t.grad for t in tensors], tensors), strict=True):
                tensor.grad = mean

    def clip(self, largest: float) -> None:
        """Shrinks both gradients by one factor, so that the norm of their sum is at most `largest`."""
        sums = [
            twin.grad if p.grad is None else p.grad if twin.grad is None else p.grad + twin.grad
            for p, twin in zip(self.parameters, self._twins, strict=True)
        ]
        norm = torch.nn.utils.get_total_norm([s for s in sums if s is not None])
        factor = (largest / (norm + 1e-6)).clamp(max=1.0)
        grads = [p.grad for p in (*self.parameters, *self._twins) if p.grad is not None]
        torch._foreach_mul_(grads, factor)

    def step(self) -> None:
        """The optimizer's step, with both gradients."""
        pairs = zip(self.parameters, self._twins, strict=True)
        self.optimizer.distillation_grads = {p: twin.grad for p, twin in pairs if twin.grad is not None}
        self.optimizer.step()

    def zero_grad(self) -> None:
        """Forgets both gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.distillation_grads = {}
        for twin in self._twins:
            twin.grad = None
