"""Every installed method on a GPU: without waits, with the numbers of a CPU, with deterministic algorithms, in half precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distillctl.engine.determinism import deterministic_algorithms
from distillctl.engine.experiment import Experiment, Part
from distillctl.engine.step import Step
from distillctl.plugin.registry import Registry

METHODS = tuple(spec.qualified for spec in Registry.load().methods)
pytestmark = pytest.mark.timeout(90)

WAITS: dict[str, str] = {}
"""Methods whose step has to wait for the device, and why."""


@pytest.mark.parametrize("method", METHODS)
def test_deterministic_algorithms_are_there_for_all_that_a_step_computes(bench: Any, method: str) -> None:
    with bench.made(method, dropout=0.2, deterministic=True) as experiment, deterministic_algorithms(experiment):
        for part in experiment.parts:
            step = bench.steps(experiment, part)
            assert step.learner.meter.read().terms


@pytest.mark.parametrize("method", METHODS)
def test_a_step_waits_for_nothing(bench: Any, fenced: Any, method: str) -> None:
    """After the first ones, whose checks read numbers."""
    with bench.made(method, dropout=0.2) as experiment:
        for part in experiment.parts:
            step, batches = Step(experiment, part), list(experiment.loader.epoch(0))
            for number, batch in enumerate(batches):
                step(batch, number)
            with fenced() if method not in WAITS else _anything():
                for number, batch in enumerate(batches, start=len(batches)):
                    step(batch, number)
            step.check()


@pytest.mark.parametrize("method", METHODS)
def test_terms_and_gradients_are_those_of_a_cpu(bench: Any, tell: Any, ieee: None, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Draws come from the CPU here, since generators of different devices draw different numbers."""
    _draw_on_the_cpu(monkeypatch)
    cpu = torch.device("cpu")
    with bench.made(method, dropout=0.2, device=cpu) as expected, bench.made(method, dropout=0.2) as experiment:
        experiment.objective.load_state_dict(expected.objective.state_dict())
        for part, same in zip(experiment.parts, expected.parts, strict=True):
            with _other_kernels() if bench.device.type == "cpu" else _anything():
                terms, grads = _gradients(experiment, part)
            wanted_terms, wanted = _gradients(expected, same)
            assert terms == pytest.approx(wanted_terms, rel=1e-3, abs=1e-6)
            assert grads.keys() == wanted.keys()
            whole = float(torch.stack([g.norm() for g in wanted.values()]).norm())
            wrong = {name: float((grads[name] - g).norm()) / whole for name, g in wanted.items()}
            # A unit that is nearly 0 may be on one side of it here and on the other there.
            tell(f"{part.name}, largest difference of a gradient over the norm of all", max(wrong.values()))
            assert max(wrong.values()) < 2e-2, sorted(wrong.items(), key=lambda item: -item[1])[:3]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("method", METHODS)
def test_half_precision_trains(bench: Any, weights_of: Any, method: str, precision: str) -> None:
    with bench.made(method, dropout=0.2, precision=precision) as experiment:
        for part in experiment.parts:
            before = weights_of(experiment)
            step = Step(experiment, part)
            if precision == "fp16":
                step.learner.scaler = torch.amp.GradScaler(bench.device.type, init_scale=256.0)
            bench.steps(experiment, step=step)
            after = weights_of(experiment)
            assert all(value.isfinite().all() for value in after.values())
            assert any(not torch.equal(value, before[name]) for name, value in after.items())


def _gradients(experiment: Experiment, part: Part) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The terms of the first batch and what they send back."""
    step = Step(experiment, part)
    learner, batch = step.learner, next(iter(experiment.loader.epoch(0)))
    step.begin(0)
    learner.finite_check.begin()
    learner.learn(0, batch, step.look(batch), step.progress, last=True)
    grads = {name: p.grad.detach().cpu() for name, p in experiment.objective.named_parameters() if p.grad is not None}
    learner.forget_gradients()
    return learner.meter.read().terms, grads


def _draw_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rand", "randn", "randint"):
        drawn = getattr(torch, name)

        def draw(*args: Any, device: Any = None, drawn: Any = drawn, **more: Any) -> Tensor:
            return drawn(*args, **more).to(device)  # type: ignore[no-any-return]

        monkeypatch.setattr(torch, name, draw)

    def dropout(given: Tensor, p: float, training: bool = True, inplace: bool = False) -> Tensor:
        return given * (torch.rand(given.shape, device=given.device) >= p) / (1 - p) if training else given

    monkeypatch.setattr(F, "dropout", dropout)


@contextmanager
def _other_kernels() -> Iterator[None]:
    """On a CPU: convolutions that round otherwise, so that the test compares something."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield


@contextmanager
def _anything() -> Iterator[None]:
    yield
