"""Optimizers that are given the gradients of labels and distillation apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from distillctl.api.optimizer import SeparateGradients
from distillctl.engine.experiment import Experiment
from distillctl.engine.gradient_pair import GradientPair
from distillctl.engine.step import Step

Make = Callable[..., Experiment]


class Keeper(SeparateGradients):
    """Plain descent on the sum; keeps what it was given."""

    def __init__(self, groups: list[dict[str, Any]], lr: float = 0.05) -> None:
        super().__init__(groups, {"lr": lr})
        self.seen: list[tuple[list[Tensor | None], list[Tensor | None]]] = []

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        params = [p for group in self.param_groups for p in group["params"]]
        grads = self.distillation_grads
        self.seen.append((
            [None if p.grad is None else p.grad.clone() for p in params],
            [grads[p].clone() if p in grads else None for p in params],
        ))  # fmt: skip
        for p in params:
            for grad in (p.grad, grads.get(p)):
                if grad is not None:
                    p.sub_(0.05 * grad)


def one_step(made: Experiment) -> Step:
    step = Step(made)
    step(next(iter(made.loader.epoch(0))), 0)
    return step


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_the_two_gradients_are_those_of_the_two_sums(experiment: Make, clip: float) -> None:
    made = experiment(clip_grad_norm=clip)
    made.build_optimizer = Keeper
    task, distillation = one_step(made).learner.optimizer.seen[0]  # type: ignore[attr-defined]
    labels = experiment(methods=[], task_weight=0.5)
    labels.build_optimizer = Keeper
    kd = experiment(task_weight=0.0)
    kd.build_optimizer = Keeper
    alone = one_step(labels).learner.optimizer.seen[0][0]  # type: ignore[attr-defined]
    other = one_step(kd).learner.optimizer.seen[0][1]  # type: ignore[attr-defined]
    if clip:
        norm = torch.stack([(a + b).norm() for a, b in zip(alone, other, strict=True)]).norm()
        assert norm > clip
        got = torch.stack([(a + b).norm() for a, b in zip(task, distillation, strict=True)]).norm()
        torch.testing.assert_close(got, torch.tensor(clip), rtol=1e-4, atol=0)
        return
    for got, expected in zip((*task, *distillation), (*alone, *other), strict=True):
        torch.testing.assert_close(got, expected)


def test_a_side_without_a_loss_has_no_gradient(experiment: Make) -> None:
    made = experiment(methods=[])
    made.build_optimizer = Keeper
    task, distillation = one_step(made).learner.optimizer.seen[0]  # type: ignore[attr-defined]
    assert all(grad is not None for grad in task)
    assert all(grad is None for grad in distillation)


def test_descent_on_the_sum_is_the_same_step(experiment: Make) -> None:
    apart, together = experiment(), experiment()
    apart.build_optimizer = Keeper
    together.build_optimizer = lambda groups: torch.optim.SGD(groups, lr=0.05)
    for made in (apart, together):
        one_step(made)
    for a, b in zip(apart.model.parameters(), together.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side", ["task", "distillation"])
def test_a_scaler_unscales_both_and_skips_for_either(side: str) -> None:
    """fp16: both gradients are unscaled by one factor; the step is left out if one of them is not finite."""
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = Keeper([{"params": [weight]}])
    pair, scaler = GradientPair(optimizer), torch.amp.GradScaler("cpu", init_scale=8.0)
    pair.backward(scaler.scale((weight * 3).sum()), scaler.scale((weight * weight).sum()))
    scaler.step(pair)  # type: ignore[arg-type]
    scaler.update()
    pair.zero_grad()
    (task, distillation) = optimizer.seen[0]
    torch.testing.assert_close(task[0], torch.tensor([3.0, 3.0]))
    torch.testing.assert_close(distillation[0], torch.tensor([2.0, 4.0]))
    bad, good = (weight * float("inf")).sum(), weight.sum()
    pair.backward(*((bad, good) if side == "task" else (good, bad)))
    scaler.step(pair)  # type: ignore[arg-type]
    scaler.update()
    assert len(optimizer.seen) == 1
    assert scaler.get_scale() == 4.0


def test_parameters_that_are_given_one_gradient_are_unscaled_once() -> None:
    a, b = (torch.nn.Parameter(torch.tensor([value, 2.0])) for value in (1.0, 3.0))
    optimizer = Keeper([{"params": [a, b]}])
    pair, scaler = GradientPair(optimizer), torch.amp.GradScaler("cpu", init_scale=8.0)
    pair.backward(scaler.scale(a.sum() * 0), scaler.scale(((a + b) * torch.tensor([1.0, 5.0])).sum()))
    scaler.step(pair)  # type: ignore[arg-type]
    for grad in optimizer.seen[0][1]:
        torch.testing.assert_close(grad, torch.tensor([1.0, 5.0]))


def test_half_precision_steps_on_any_device(experiment: Make) -> None:
    """The scaler, two gradients, clipping and the moving average together."""
    made = experiment(precision="fp16", clip_grad_norm=1.0, ema=0.5)
    made.build_optimizer = Keeper
    before = [p.detach().clone() for p in made.model.parameters()]
    step = one_step(made)
    assert step.learner.scaler.is_enabled()
    assert step.learner.optimizer.seen  # type: ignore[attr-defined]
    assert step.learner.ema is not None
    assert step.learner.ema.updates == 1
    assert any(not torch.equal(a, b) for a, b in zip(before, made.model.parameters(), strict=True))
