"""What is said when memory runs out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from distillctl.api.method import Batch, Features, Method, Progress
from distillctl.api.options import Options
from distillctl.engine.experiment import Experiment
from distillctl.engine.loop import Loop
from distillctl.engine.memory import peak_memory
from distillctl.engine.step import Step
from distillctl.errors import MachineError
from distillctl.rundir.directory import RunDirectory

Make = Callable[..., Experiment]


class Greedy(Method):
    """Wants more memory than there is."""

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> torch.Tensor:
        return torch.empty(1 << 55).sum()


class Bug(Method):
    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> torch.Tensor:
        raise RuntimeError("shapes do not match")


def step_of(made: Experiment) -> None:
    Step(made)(next(iter(made.loader.epoch(0))), 0)


def test_a_step_names_what_took_the_memory_and_what_to_lower(experiment: Make, no_options: Options) -> None:
    with pytest.raises(MachineError) as caught:
        step_of(experiment(methods=[("greedy", Greedy, no_options, 1.0)]))
    problem = caught.value.problems[0]
    for words in (
        "memory ran out in a training step on cpu",
        "asking for 137,438,953,472 MiB more",
        "the student",
        "the teacher",
        "activations",
    ):
        assert words in problem.message
    for key in ("`train.accumulate`", "`train.batch_size`", "`train.precision"):
        assert key in problem.hint
    assert caught.value.exit_code == 3


def test_the_gpus_own_error_is_told_in_the_same_way(experiment: Make, no_options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    def shortage(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.11 GiB")

    monkeypatch.setattr(Greedy, "forward", shortage)
    with pytest.raises(MachineError, match=r"asking for 2\.50 GiB more"):
        step_of(experiment(methods=[("greedy", Greedy, no_options, 1.0)]))


def test_an_evaluation_says_that_it_was_one(experiment: Make, watcher: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = experiment(epochs=1)
    run = RunDirectory.create(tmp_path / "run", profile=b"", resolved="", environment={}, state={"digest": "d" * 64})
    loop = Loop(made, run, watcher)
    made.model.register_forward_hook(lambda module, *_: None if module.training else torch.empty(1 << 55))
    with pytest.raises(MachineError, match="memory ran out in an evaluation") as caught:
        loop.evaluate(made.model, "val")
    assert caught.value.problems[0].hint == "lower `evaluate.batch_size`"


def test_other_errors_stay_what_they_are(experiment: Make, no_options: Options) -> None:
    with pytest.raises(RuntimeError, match="shapes do not match"):
        step_of(experiment(methods=[("bug", Bug, no_options, 1.0)]))


def test_optimizer_state_and_gradients_are_counted(experiment: Make, no_options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    made = experiment()
    step = Step(made)
    batch = next(iter(made.loader.epoch(0)))
    step(batch, 0)  # momentum is there from now on
    monkeypatch.setattr(step.learner.finite_check, "gradients", lambda *_: torch.empty(1 << 55))
    with pytest.raises(MachineError, match=r"the optimizer \d+ KiB, gradients \d+ KiB"):
        step(replace(batch), 1)


def test_a_system_that_does_not_count_memory_has_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory(torch.device("cpu")) is None
