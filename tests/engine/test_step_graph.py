"""A captured step: what it reads, what it leaves behind, and what happens to batches that were not captured.

A CPU has no graphs. Here one is a function that computes the captured batch again, which is what a replay does on a GPU; that kernels
are captured and sent as they should be is tested in `tests/gpu`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distillctl.api.method import Batch, Features, Method, Progress
from distillctl.api.options import Options
from distillctl.engine import finite_check
from distillctl.engine.experiment import Experiment
from distillctl.engine.loop import Loop
from distillctl.engine.meter import Reading
from distillctl.engine.step import Step
from distillctl.engine.step_graph import StepGraph, _Captured, _copied
from distillctl.errors import RunError
from distillctl.rundir.directory import RunDirectory

Make = Callable[..., Experiment]


def _capture(self: StepGraph, batch: Batch, step: int) -> _Captured:
    """As `StepGraph._capture`, for a CPU: nothing is computed now, and the same batch in the same place each time it is sent."""
    held = _copied(batch)
    noted: list[finite_check.Noted] = [[] for _ in self._learners]

    def send() -> None:
        images = [learner.meter.images for learner in self._learners]
        self._compute(held, step)
        for learner, count, mine in zip(self._learners, images, noted, strict=True):
            learner.meter.images = count
            if not mine:
                mine[:] = learner.finite_check.noted
            for (_, kept), (_, new) in zip(mine, learner.finite_check.noted, strict=True):
                kept.copy_(new)  # where the graph writes them each time

    return _Captured(send, held, noted)


@pytest.fixture(autouse=True)
def like_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finite_check, "read_later", lambda device: True)
    monkeypatch.setattr(StepGraph, "_capture", _capture)


def fused(made: Experiment, graph: str = "auto") -> Experiment:
    """With an optimizer that leaves out updates by itself."""
    made.build_optimizer = lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9, fused=True)
    made.settings = replace(made.settings, cuda_graph=graph)  # type: ignore[arg-type]
    return made


def trained(made: Experiment, epochs: int = 4) -> tuple[Step, list[Reading]]:
    step, readings = Step(made), []
    for epoch in range(epochs):
        for number, batch in enumerate(made.loader.epoch(epoch)):
            step(batch, epoch * made.loader.steps + number)
        step.check()
        readings.append(step.learner.meter.read())
        step.learner.meter.restart()
    return step, readings


def weights(made: Experiment) -> dict[str, Tensor]:
    return made.model.state_dict()


@pytest.mark.parametrize("train", [{}, {"ema": 0.9, "ema_ramp": 0.0}, {"accumulate": 2}, {"clip_grad_norm": 0.5}, {"mixup": 1.0}])
def test_a_replayed_run_is_the_run_that_was_not_captured(experiment: Make, train: dict[str, Any]) -> None:
    plain, graphed = (fused(experiment(epochs=8, **train), graph) for graph in ("off", "auto"))
    (one, before), (other, after) = trained(plain, 8), trained(graphed, 8)
    assert one.graph is None
    assert other.graph is not None
    assert other.graph.captured == 2  # whole batches, and the short one of each epoch
    assert after == before
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(graphed)[name], value, rtol=1e-5, atol=1e-6)
    if one.learner.ema is not None and other.learner.ema is not None:
        assert one.learner.ema.updates == other.learner.ema.updates
        torch.testing.assert_close(other.learner.ema.tensors, one.learner.ema.tensors, rtol=1e-5, atol=1e-6)


def test_a_replay_reads_rates_and_progress_of_its_own_step(experiment: Make, no_options: Options) -> None:
    class Grows(Method):
        def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
            return student["logits"].square().mean() * (progress.epoch + progress.fraction)

    runs = []
    for graph in ("off", "auto"):
        made = fused(experiment(methods=[("grows", Grows, no_options, 1.0)], epochs=6), graph)
        made.parts = (replace(made.main, schedule=lambda progress: 0.1 * (1 - progress)),)
        trained(made, 6)
        runs.append(weights(made))
    for name, value in runs[0].items():
        torch.testing.assert_close(runs[1][name], value, rtol=1e-5, atol=1e-6)


def test_the_last_short_batch_and_the_first_steps_are_taken_as_usual(experiment: Make) -> None:
    made = fused(experiment(epochs=2))  # 16, 16 and 8 images
    step, _ = trained(made, 2)
    assert step.graph is not None
    assert step.graph.captured == 1


@pytest.mark.parametrize("graph", ["off", "auto"])
def test_no_update_is_made_from_numbers_that_are_not_finite_nor_any_after_it(experiment: Make, graph: str) -> None:
    made = fused(experiment(epochs=8, methods=[]), graph)
    step, _ = trained(made, 4)
    kept = {name: value.clone() for name, value in weights(made).items()}
    momenta = [state["momentum_buffer"].clone() for state in step.learner.optimizer.state.values()]
    batches = list(made.loader.epoch(4))
    number = 4 * made.loader.steps
    step(replace(batches[0], images=batches[0].images * float("nan")), number)
    with pytest.raises(RunError, match=f"the input .* at step {number + 1}"):
        step(batches[1], number + 1)
    assert all(torch.equal(value, kept[name]) for name, value in weights(made).items() if "running" not in name and "tracked" not in name)
    assert all(torch.equal(state["momentum_buffer"], m) for state, m in zip(step.learner.optimizer.state.values(), momenta, strict=True))


class Explodes(Method):
    """A finite term whose gradient is not, from an epoch on."""

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        return (student["logits"].mean() * 0 + (progress.epoch <= 4)).sqrt()


@pytest.mark.parametrize("graph", ["off", "auto"])
def test_a_gradient_is_named_after_the_step(experiment: Make, no_options: Options, graph: str) -> None:
    made = fused(experiment(epochs=8, methods=[("explodes", Explodes, no_options, 1.0)]), graph)
    step, _ = trained(made, 4)
    kept = {name: value.clone() for name, value in made.model.named_parameters()}
    number = 4 * made.loader.steps
    step(next(made.loader.epoch(4)), number)
    with pytest.raises(RunError, match=rf"the gradient of `student\.model\..*` and of \d+ others at step {number + 1}"):
        step.check()
    assert all(torch.equal(value, kept[name]) for name, value in made.model.named_parameters())


def test_an_optimizer_that_leaves_nothing_out_is_waited_for(experiment: Make, no_options: Options) -> None:
    made = experiment(epochs=8, methods=[("explodes", Explodes, no_options, 1.0)])
    made.settings = replace(made.settings, cuda_graph="auto")
    made.build_optimizer = lambda groups: torch.optim.SGD(groups, lr=0.05)
    step, _ = trained(made, 4)
    assert step.graph is None
    kept = {name: value.clone() for name, value in made.model.named_parameters()}
    with pytest.raises(RunError, match=r"the gradient of `student\.model\..*` and of \d+ others at step 13"):
        step(next(made.loader.epoch(4)), 12)
    assert all(torch.equal(value, kept[name]) for name, value in made.model.named_parameters())


def refused(self: StepGraph, batch: Batch, step: int) -> _Captured:
    """A capture that fails."""
    raise RuntimeError("not permitted\nmore")


def test_what_cannot_be_captured_is_taken_as_usual_and_told(
    experiment: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, watcher: Any
) -> None:
    monkeypatch.setattr(StepGraph, "_capture", refused)
    plain, graphed = fused(experiment(), "off"), fused(experiment())
    for number, made in enumerate((plain, graphed)):
        run = RunDirectory.create(tmp_path / str(number), profile=b"", resolved="", environment={}, state={"digest": "d" * 64})
        Loop(made, run, watcher).train()
    assert watcher.notes == [
        "warning: a step cannot be captured as a CUDA graph: not permitted; "
        "every kernel is sent by itself, which is slower for small networks"
    ]
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(graphed)[name], value, rtol=1e-5, atol=1e-6)


def test_what_must_be_captured_and_cannot_be_is_an_error(experiment: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepGraph, "_capture", refused)
    with pytest.raises(RunError, match="a step cannot be captured as a CUDA graph: not permitted\n"):
        trained(fused(experiment(), "on"))


def test_targets_that_are_not_a_tensor_are_not_captured(experiment: Make) -> None:
    made = fused(experiment())
    step = Step(made)
    for number in range(8):
        batch = next(made.loader.epoch(0))
        step(replace(batch, targets=[None] * batch.count), number)
    assert step.graph is not None
    assert step.graph.captured == 0


def test_a_run_goes_on_bit_by_bit_and_its_checkpoint_holds_numbers(experiment: Make, tmp_path: Path, watcher: Any) -> None:
    finals = []
    for stop in (None, 3):
        run = None
        for epochs in (6,) if stop is None else (stop, 6):
            made = fused(experiment(epochs=6, ema=0.9))
            if run is None:
                run = RunDirectory.create(tmp_path / str(stop), profile=b"", resolved="", environment={}, state={"digest": "d" * 64})
            loop = Loop(made, run, watcher)
            while loop.position.epoch < epochs:
                loop._epoch()
        state = torch.load(run.last, weights_only=True)
        assert all(type(group["lr"]) is float for group in state["optimizer"]["param_groups"])
        finals.append(state["student"])
    assert all(torch.equal(value, finals[1][name]) for name, value in finals[0].items())
