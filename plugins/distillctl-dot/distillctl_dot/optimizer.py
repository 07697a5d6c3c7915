"""`dot`: momentum SGD in which the gradient of the label loss and that of the methods each have a momentum of their own.

    v_ce ← (μ − Δ) · v_ce + g_ce + λ · θ
    v_kd ← (μ + Δ) · v_kd + g_kd
    θ ← θ − η · (v_ce + v_kd)

g_ce: gradient of the weighted label loss, `p.grad`; g_kd: that of the weighted sum of all terms, `distillation_grads[p]`; η, μ, Δ,
λ: `lr`, `momentum`, `delta`, `weight_decay`. Both sums start at 0, so that v = g in the first step; no dampening, no Nesterov.
Zhao, Cui, Song, Liang, ICCV 2023, arXiv 2307.08436.

A parameter that one side alone reaches (a method's connector, a head that nothing is distilled into) has momentum μ and its decay on
that side. A side reaches a parameter from the first gradient on that it has for it. If the gradient is missing later on, it counts as 0
while the other one is there: the sum decays with its own momentum and goes on moving the parameter. Without any gradient a parameter
and its sums stay as they are. So Δ = 0 is `torch.optim.SGD` on the sum of both gradients, whichever of them are there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distillctl import SeparateGradients

TASK, DISTILLATION = "momentum_buffer", "momentum_kd_buffer"


class DOT(SeparateGradients):
    """The distillation-oriented trainer, arXiv 2307.08436.

    Every group may have its own `lr`, `momentum`, `delta` and `weight_decay`. State of a parameter: `momentum_buffer` where the label
    loss reaches it, `momentum_kd_buffer` where a method does. All tensors of a group are updated together.
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, momentum: float, delta: float, weight_decay: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "delta": delta, "weight_decay": weight_decay})
        self.distillation_grads = {}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # two losses cannot come from one closure
        """One step with the gradients of both sides."""
        for group in self.param_groups:
            momentum, delta, decay = group["momentum"], group["delta"], group["weight_decay"]
            both, task, distillation = self._by_sides(group["params"])
            self._accumulate(both, TASK, momentum - delta, decay)
            self._accumulate(both, DISTILLATION, momentum + delta, 0.0)
            self._accumulate(task, TASK, momentum, decay)
            self._accumulate(distillation, DISTILLATION, momentum, decay)
            for params, key in ((both, TASK), (both, DISTILLATION), (task, TASK), (distillation, DISTILLATION)):
                if params:
                    torch._foreach_add_(params, self._sums(params, key), alpha=-group["lr"])

    def _by_sides(self, params: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """The parameters that have a gradient: reached by both sides, by the label loss alone, by the methods alone."""
        both: list[Tensor] = []
        task: list[Tensor] = []
        distillation: list[Tensor] = []
        for p in params:
            if p.grad is None and p not in self.distillation_grads:
                continue
            state = self.state[p]
            for key in (TASK, DISTILLATION):
                if key not in state and self._grad(p, key) is not None:
                    state[key] = torch.zeros_like(p)
            (distillation if TASK not in state else both if DISTILLATION in state else task).append(p)
        return both, task, distillation

    def _grad(self, p: Tensor, key: str) -> Tensor | None:
        return p.grad if key == TASK else self.distillation_grads.get(p)

    def _sums(self, params: list[Tensor], key: str) -> list[Tensor]:
        return [self.state[p][key] for p in params]

    def _accumulate(self, params: list[Tensor], key: str, momentum: float, decay: float) -> None:
        """Brings the sums of one side up to date: v ← momentum · v + g + decay · θ."""
        if not params:
            return
        sums = self._sums(params, key)
        torch._foreach_mul_(sums, momentum)
        found = [(v, grad) for p, v in zip(params, sums, strict=True) if (grad := self._grad(p, key)) is not None]
        if found:
            torch._foreach_add_([v for v, _ in found], [grad for _, grad in found])
        if decay:
            torch._foreach_add_(sums, params, alpha=decay)
