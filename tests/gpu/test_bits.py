"""`train.deterministic`: two runs and a continued one have equal bits."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor

from distillctl.engine.determinism import deterministic_algorithms
from distillctl.engine.experiment import Experiment
from distillctl.engine.position import Position
from distillctl.engine.state import full_state, restore
from distillctl.engine.step import Step

pytestmark = pytest.mark.timeout(90)

RUNS: dict[str, dict[str, Any]] = {
    "kd": {},
    "kd, bf16": {"precision": "bf16"},
    "kd, captured": {"cuda_graph": "auto"},
    "crd": {},
    "crd, captured": {"cuda_graph": "auto"},
    "dot": {"optimizer": "dot"},
    "reviewkd": {},
    "mgd": {},
    "simkd": {"optimizer": "adamw"},
}


def options(name: str) -> tuple[str, dict[str, Any]]:
    method = name.partition(",")[0]
    return "kd" if method == "dot" else method, {"ema": 0.9, "dropout": 0.2, "deterministic": True, **RUNS[name]}


def saved(experiment: Experiment, step: Step, epoch: int) -> dict[str, Any]:
    """The full state, as a checkpoint on disk gives it back."""
    file = io.BytesIO()
    torch.save(full_state(experiment, step, Position(epoch=epoch), None), file)
    file.seek(0)
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def tensors(state: Any, name: str = "") -> dict[str, Tensor]:
    """All tensors of a state by their place."""
    if isinstance(state, Tensor):
        return {name: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list | tuple) else ()
    return {place: value for key, inner in items for place, value in tensors(inner, f"{name}/{key}").items()}


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys()
    assert first
    return [name for name, value in first.items() if not torch.equal(value, second[name])]


@pytest.mark.parametrize("name", RUNS)
def test_two_runs_are_equal(bench: Any, name: str) -> None:
    method, train = options(name)
    states = []
    for _ in range(2):
        with bench.made(method, **train) as experiment, deterministic_algorithms(experiment):
            states.append(saved(experiment, bench.steps(experiment, epochs=range(3)), 3))
    assert not differing(*states)


@pytest.mark.parametrize("name", RUNS)
def test_a_continued_run_is_equal(bench: Any, name: str) -> None:
    method, train = options(name)
    with bench.made(method, **train) as experiment, deterministic_algorithms(experiment):
        step = bench.steps(experiment, epochs=range(2))
        half = saved(experiment, step, 2)
        step.learner.meter.restart()
        whole = saved(experiment, bench.steps(experiment, epochs=range(2, 4), step=step), 4)
    with bench.made(method, **train) as experiment, deterministic_algorithms(experiment):
        step = Step(experiment)
        restore(half, experiment, step, bench)
        rest = saved(experiment, bench.steps(experiment, epochs=range(2, 4), step=step), 4)
    assert not differing(whole, rest)
    assert differing(half, rest)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "dot"])
def test_what_a_cpu_began_goes_on_here_as_if_it_had_begun_here(bench: Any, device: torch.device, optimizer: str) -> None:
    """The optimizer is as fused as a fresh one, and its states are on the device."""
    with bench.made("kd", optimizer=optimizer, device=torch.device("cpu")) as begun:
        state = saved(begun, bench.steps(begun), 1)
    with bench.made("kd", optimizer=optimizer) as experiment:
        step = Step(experiment)
        fresh = [{key: group.get(key) for key in ("fused", "foreach")} for group in step.learner.optimizer.param_groups]
        restore(state, experiment, step, bench)
        groups = [{key: group.get(key) for key in ("fused", "foreach")} for group in step.learner.optimizer.param_groups]
        assert groups == fresh
        assert optimizer == "dot" or groups[0]["fused"] == (device.type == "cuda")
        bench.steps(experiment, epochs=[1], step=step)
        states = [v for s in step.learner.optimizer.state.values() for k, v in s.items() if isinstance(v, Tensor) and k != "step"]
        assert states
        assert {value.device.type for value in states} == {device.type}
