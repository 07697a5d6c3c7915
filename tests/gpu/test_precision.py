"""Numbers that are not finite: a scaler in half precision leaves steps out, everything else stops the run before the weights change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distillctl.api.method import Batch
from distillctl.engine.experiment import Experiment
from distillctl.engine.step import Step
from distillctl.errors import RunError

pytestmark = pytest.mark.timeout(60)
TOO_LARGE = 2.0**60


def momenta(step: Step) -> list[Tensor]:
    """All that the optimizer keeps for the parameters."""
    return [value for state in step.learner.optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "dot"])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_an_overflow_in_the_first_step_leaves_weights_and_momenta_sane(bench: Any, weights_of: Any, optimizer: str, ema: float) -> None:
    with bench.made("kd", precision="fp16", optimizer=optimizer, ema=ema) as experiment:
        before, step = weights_of(experiment), Step(experiment)
        step.learner.scaler = scaler = torch.amp.GradScaler(bench.device.type, init_scale=TOO_LARGE)
        first, *others = experiment.loader.epoch(0)
        step(first, 0)
        assert all(torch.equal(value, before[name]) for name, value in weights_of(experiment).items())
        scaler.update(256.0)
        for number, batch in enumerate(others, start=1):
            step(batch, number)
        step.check()
        after = weights_of(experiment)
        assert all(value.isfinite().all() for value in after.values())
        assert any(not torch.equal(value, before[name]) for name, value in after.items())
        assert momenta(step)
        assert all(float(value.abs().max()) < 1e3 for value in momenta(step))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_parameter_whose_first_gradient_comes_late(bench: Any, device: torch.device, optimizer: str) -> None:
    """It is updated as on a CPU, where nothing is fused."""
    with bench.made("kd", optimizer=optimizer) as experiment:
        results = []
        for where in (torch.device("cpu"), device):
            early, late = (nn.Parameter(torch.ones(3, 5, device=where)) for _ in range(2))
            made = experiment.build_optimizer([{"params": [early, late]}])
            for number in range(3):
                early.grad = torch.full_like(early, 0.5)
                late.grad = torch.full_like(late, 0.25) if number else None
                made.step()
            results.append((early.detach().cpu(), late.detach().cpu()))
    torch.testing.assert_close(results[1], results[0])
    assert not torch.equal(results[0][1], torch.ones(3, 5))


def test_dot_in_half_precision(bench: Any, weights_of: Any) -> None:
    """Two gradients, one scaler; with a step in the middle that it leaves out."""
    with bench.made("kd", optimizer="dot", precision="fp16") as experiment:
        step, batches = Step(experiment), list(experiment.loader.epoch(0))
        step.learner.scaler = scaler = torch.amp.GradScaler(bench.device.type, init_scale=256.0)
        step(batches[0], 0)
        before = weights_of(experiment)
        scaler.update(TOO_LARGE)
        step(batches[1], 1)
        assert all(torch.equal(value, before[name]) for name, value in weights_of(experiment).items())
        scaler.update(256.0)
        step(batches[2], 2)
        step.check()
        after = weights_of(experiment)
        assert all(value.isfinite().all() for value in after.values())
        assert any(not torch.equal(value, before[name]) for name, value in after.items())


@pytest.mark.parametrize("train", [{}, {"ema": 0.9}, {"clip_grad_norm": 1.0}, {"accumulate": 2}, {"precision": "bf16"}], ids=str)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "dot"])
def test_a_gradient_that_is_not_a_number_leaves_the_weights_as_they_were(
    bench: Any, weights_of: Any, optimizer: str, train: dict[str, Any]
) -> None:
    with bench.made("kd", optimizer=optimizer, **train) as experiment:
        step = bench.steps(experiment)
        name = spoil(experiment)
        before, momentum = weights_of(experiment), [m.clone() for m in momenta(step)]
        steps = experiment.loader.steps
        with pytest.raises(RunError, match="not finite") as caught:
            bench.steps(experiment, epochs=[1], step=step)
        message = str(caught.value)
        assert f"at step {steps + 1}" in message
        if "clip_grad_norm" not in train:  # then all of them are not finite
            assert f"the gradient of `{name}`" in message
        assert all(torch.equal(value, before[n]) for n, value in weights_of(experiment).items())
        assert all(torch.equal(m, old) for m, old in zip(momenta(step), momentum, strict=True))


def test_a_gradient_that_is_not_a_number_in_a_captured_step(bench: Any, weights_of: Any) -> None:
    """Captured where the device can: the flag and the culprit are the same."""
    with bench.made("kd", cuda_graph="auto", ema=0.9) as experiment:
        step = bench.steps(experiment, epochs=range(4))
        first = next(iter(experiment.loader.epoch(0)))
        assert (step.graph is not None) == (bench.device.type == "cuda")
        assert step.graph is None or step.graph.captured
        before = weights_of(experiment)
        images = first.images.clone()
        images[1, 0, 3, 3] = float("nan")
        spoilt, told = replace(first, images=images), rf"the input \(image {int(first.index[1])} of the training split\) at step 9"
        with pytest.raises(RunError, match=told):
            take(step, spoilt, 8, 9)
        assert all(torch.equal(value, before[n]) for n, value in weights_of(experiment).items())


def take(step: Step, batch: Batch, *numbers: int) -> None:
    for number in numbers:
        step(batch, number)
    step.check()


def spoil(experiment: Experiment) -> str:
    """From now on the gradient of one parameter is not a number; its name."""
    name, parameter = next((n, p) for n, p in experiment.objective.named_parameters() if p.requires_grad and p.ndim == 2)
    parameter.register_hook(lambda grad: grad * float("nan"))
    return name
