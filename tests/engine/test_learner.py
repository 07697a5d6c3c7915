"""From gradients to weights: what is clipped and when, what is averaged, what is forgotten."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from distillctl.engine.experiment import Experiment
from distillctl.engine.learner import _load_optimizer
from distillctl.engine.step import Step

Make = Callable[..., Experiment]


class Noted(torch.optim.SGD):
    """SGD that keeps the gradients of each step."""

    def __init__(self, groups: Any) -> None:
        super().__init__(groups, lr=0.05)
        self.seen: list[list[Tensor]] = []

    def step(self, closure: Any = None) -> Any:
        self.seen.append([p.grad.clone() for group in self.param_groups for p in group["params"] if p.grad is not None])
        return super().step(closure)


def steps(made: Experiment, count: int = 1, scaled: bool = False) -> Step:
    made.build_optimizer = Noted
    step = Step(made)
    if scaled:  # as in half precision on a GPU
        step.learner.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for number, batch in zip(range(count), made.loader.epoch(0), strict=False):
        step(batch, number)
    return step


def seen(step: Step) -> list[list[Tensor]]:
    assert isinstance(step.learner.optimizer, Noted)
    return step.learner.optimizer.seen


def norm(gradients: list[Tensor]) -> float:
    return math.sqrt(sum(float(g.double().square().sum()) for g in gradients))


@pytest.mark.parametrize("scaled", [False, True])
def test_the_norm_of_all_gradients_together_is_clipped_whatever_their_scale(experiment: Make, scaled: bool) -> None:
    (free,) = seen(steps(experiment(), scaled=scaled))
    limit = norm(free) / 3
    (clipped,) = seen(steps(experiment(clip_grad_norm=limit), scaled=scaled))
    assert norm(clipped) == pytest.approx(limit, rel=1e-4)
    for one, other in zip(free, clipped, strict=True):
        torch.testing.assert_close(one / 3, other, rtol=1e-3, atol=1e-7)
    (untouched,) = seen(steps(experiment(clip_grad_norm=10 * norm(free)), scaled=scaled))
    for one, other in zip(free, untouched, strict=True):
        torch.testing.assert_close(one, other)


def test_a_step_knows_nothing_of_the_gradients_before(experiment: Make) -> None:
    made = experiment()
    learner = steps(made, 2).learner
    assert all(p.grad is None for p in learner.parameters)


def test_what_is_evaluated_is_the_average(experiment: Make) -> None:
    step = steps(experiment(ema=0.9, ema_ramp=0.0), 3)
    learner = step.learner
    assert learner.ema is not None
    assert learner.evaluated is learner.ema.model
    assert learner.ema.updates == 3
    pairs = zip(learner.model.parameters(), learner.evaluated.parameters(), strict=True)
    assert all(not torch.equal(raw, average) for raw, average in pairs)
    assert steps(experiment()).learner.evaluated is not None


def test_without_an_average_the_student_itself_is_evaluated(experiment: Make) -> None:
    learner = steps(experiment()).learner
    assert learner.evaluated is learner.model


def test_a_state_goes_round(experiment: Make) -> None:
    first = steps(experiment(ema=0.9), 2).learner
    second = steps(experiment(ema=0.9), 1).learner
    second.load_state_dict(first.state_dict(), same_part=True, same_profile=True)
    for part in ("student", "methods"):
        one, other = first.state_dict()[part], second.state_dict()[part]
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert second.ema is not None
    assert second.ema.updates == 2


def test_an_accepted_change_of_the_optimizer_counts(experiment: Make) -> None:
    """Momenta are taken over, hyperparameters are those of now."""
    first, second = (Step(experiment()).learner for _ in range(2))
    second.optimizer.param_groups[0]["weight_decay"] = 0.25
    second.load_state_dict(first.state_dict(), same_part=True, same_profile=False)
    assert second.optimizer.param_groups[0]["weight_decay"] == 0.25
    second.load_state_dict(first.state_dict(), same_part=True, same_profile=True)
    assert second.optimizer.param_groups[0]["weight_decay"] == first.optimizer.param_groups[0]["weight_decay"]


@pytest.mark.parametrize("same_profile", [False, True])
@pytest.mark.parametrize("here", [False, True])
def test_a_run_that_goes_on_elsewhere_computes_with_the_kernels_of_that_device(here: bool, same_profile: bool) -> None:
    """`here`: whether the optimizer is fused, as on CUDA, where the state is of one that is not, or the other way round."""
    one, other = (torch.nn.Parameter(torch.zeros(3)) for _ in range(2))
    before = torch.optim.AdamW([one], lr=torch.tensor(0.25), weight_decay=0.125, fused=not here, foreach=None if not here else False)
    after = torch.optim.AdamW([other], lr=0.5, weight_decay=0.5, fused=here)
    one.grad = torch.ones(3)
    before.step()
    kept = dict(after.param_groups[0])
    _load_optimizer(after, before.state_dict(), same_profile=same_profile)
    (group,) = after.param_groups
    assert [group[key] for key in ("fused", "foreach", "capturable", "differentiable")] == [here, None, False, False]
    assert (type(group["lr"]), group["lr"]) == (float, 0.25 if same_profile else 0.5)
    assert group["weight_decay"] == (0.125 if same_profile else 0.5)
    assert group["params"] == [other]
    assert kept.keys() == group.keys()
    other.grad = torch.ones(3)
    after.step()
    assert after.state[other]["step"] == 2


def test_the_count_of_steps_lies_where_the_kernels_want_it() -> None:
    """Fused AdamW on CUDA has it on the device, which torch decides by the groups that it is given."""
    one, other = torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(3, device="meta"))
    before, after = torch.optim.AdamW([one]), torch.optim.AdamW([other])
    after.param_groups[0]["fused"] = True
    one.grad = torch.ones(3)
    before.step()
    _load_optimizer(after, before.state_dict(), same_profile=True)
    assert after.state[other]["step"].device.type == "meta"


def test_a_state_with_other_groups_is_refused_by_torch() -> None:
    one, other = (torch.nn.Parameter(torch.zeros(3)) for _ in range(2))
    with pytest.raises(ValueError, match="different number of parameter groups"):
        _load_optimizer(torch.optim.SGD([one]), torch.optim.SGD([{"params": [one]}, {"params": [other]}]).state_dict(), same_profile=True)
