"""A number that is not finite stops the run in its step, before the weights change, and is named."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distillctl.api.method import Batch, Features, Method, Progress
from distillctl.api.options import Options
from distillctl.engine import checkpoint, finite_check
from distillctl.engine.experiment import Experiment
from distillctl.engine.finite_check import FiniteCheck
from distillctl.engine.loop import Loop
from distillctl.engine.objective import Losses
from distillctl.engine.step import Step
from distillctl.errors import RunError
from distillctl.rundir.directory import RunDirectory

Make = Callable[..., Experiment]
BAD = [float("nan"), float("inf"), float("-inf")]


def first_batch(made: Experiment) -> Batch:
    return next(iter(made.loader.epoch(0)))


def state(made: Experiment) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in made.model.state_dict().items() if "running" not in name and "tracked" not in name}


def refused(made: Experiment, step: Step, batch: Batch, words: str) -> None:
    """The step raises with these words and leaves the weights as they were."""
    before = state(made)
    with pytest.raises(RunError, match=words) as caught:
        step(batch, 3)
    assert "at step 4" in str(caught.value)
    assert caught.value.problems[0].hint
    assert all(torch.equal(value, before[name]) for name, value in state(made).items())


@pytest.mark.parametrize("value", BAD)
def test_in_the_input(experiment: Make, value: float) -> None:
    made = experiment()
    batch = first_batch(made)
    images = batch.images.clone()
    images[5, 0, 0, 0] = value
    refused(made, Step(made), replace(batch, images=images), rf"the input \(image {int(batch.index[5])} of the training split\)")


@pytest.mark.parametrize("value", BAD)
def test_in_a_teachers_logit(experiment: Make, value: float) -> None:
    made = experiment()
    step, teach = Step(made), made.network
    assert teach is not None
    with torch.no_grad():
        teach.model.fc.bias[2] = value  # type: ignore[union-attr, operator, index]
    refused(made, step, first_batch(made), "the teacher's logits")


def test_in_a_logit_of_one_of_several_teachers(experiment: Make) -> None:
    check = FiniteCheck([], torch.device("cpu"), watch_gradients=True, teachers=["`a`", "`b` from `b.pt`"])
    zero, fine, wrong = torch.zeros(()), {"logits": torch.zeros(2, 4)}, {"logits": torch.full((2, 4), float("nan"))}
    second, first = {"running": fine, "running@1": wrong}, {"batch": wrong, "running@1": wrong}
    for looks, shown in ((second, r"\(`b` from `b.pt`\)"), (first, r"\(`a`\) \(batch")):
        with pytest.raises(RunError, match=f"the teacher's logits {shown}"):
            check.losses(0, first_batch(experiment()), looks, Losses(zero, zero, {}, None))


def test_in_what_a_teacher_gave_that_is_not_a_tensor(experiment: Make) -> None:
    check = FiniteCheck([], torch.device("cpu"), watch_gradients=True)
    zero = torch.zeros(())
    for value, raises in ((1.0, False), (float("nan"), True)):
        looks = {"running": {"logits": {"p2": torch.ones(2), "rest": [torch.tensor(3), torch.tensor([value])]}}}
        with pytest.raises(RunError, match="the teacher's logits") if raises else nullcontext():
            check.losses(0, first_batch(experiment()), looks, Losses(zero, zero, {}, None))


class Term(Method):
    """Its second term is what the test sets."""

    value = 0.0  # a constant other than 0 is refused in the first step

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> dict[str, Tensor]:
        return {"good": student["logits"].mean(), "bad": student["logits"].mean().detach() * 0 + self.value}


@pytest.mark.parametrize("value", BAD)
def test_in_one_term_even_if_no_gradient_flows_from_it(
    experiment: Make, value: float, no_options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = experiment(methods=[("odd", Term, no_options, 0.5)])
    step = Step(made)
    step(first_batch(made), 2)
    monkeypatch.setattr(Term, "value", value)
    refused(made, step, first_batch(made), r"the term `odd\.bad`")


class Explodes(Method):
    """A finite term whose gradient is not."""

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        return (student["logits"].mean() * 0).abs().sqrt()


def test_in_a_gradient(experiment: Make, no_options: Options) -> None:
    made = experiment(methods=[("explodes", Explodes, no_options, 1.0)])
    refused(made, Step(made), first_batch(made), r"the gradient of `student\.model\..*` and of \d+ others")


@pytest.mark.parametrize("value", BAD)
def test_in_one_entry_of_one_gradient(experiment: Make, value: float) -> None:
    made = experiment()
    step = Step(made)
    weight = made.model.fc.weight
    weight.register_hook(lambda grad: grad.index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(value)))  # type: ignore[operator, union-attr]
    refused(made, step, first_batch(made), r"the gradient of `student\.model\.fc\.weight` at")


@pytest.mark.parametrize("value", BAD)
def test_in_the_moving_average(experiment: Make, value: float) -> None:
    made = experiment(ema=0.9)
    step = Step(made)
    step(first_batch(made), 2)
    assert step.learner.ema is not None
    with torch.no_grad():
        step.learner.ema.model.fc.weight[0, 0] = value  # type: ignore[union-attr, operator, index]
    with pytest.raises(RunError, match="the moving average of the weights at step 4"):
        step(first_batch(made), 3)


def test_a_run_that_is_stopped_keeps_its_last_good_checkpoint(experiment: Make, watcher: Any, tmp_path: Path, no_options: Options) -> None:
    class Late(Method):
        def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
            return torch.where(progress.epoch > 2, float("inf"), 1.0) * student["logits"].square().mean()

    made = experiment(methods=[("late", Late, no_options, 1.0)], epochs=4, save_every=0.0)
    run = RunDirectory.create(tmp_path / "run", profile=b"", resolved="", environment={}, state={"digest": "d" * 64})
    with pytest.raises(RunError, match="`late` at step 7"):
        Loop(made, run, watcher).train()
    kept = checkpoint.load(run.last)
    assert (kept["position"]["epoch"], kept["position"]["step"]) == (2, 0)
    assert all(value.isfinite().all() for value in kept["student"].values())


def test_what_is_read_later_is_named_with_its_own_step(experiment: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: a step's numbers are looked at after the next one, and before anything is saved."""
    monkeypatch.setattr(finite_check, "read_later", lambda device: True)
    made = experiment()
    guard = FiniteCheck([], made.device, watch_gradients=True)
    batch = first_batch(made)
    logits = {"running": {"logits": torch.zeros(2, 4)}}

    def step(number: int, value: float) -> None:
        guard.begin()
        guard.losses(number, batch, logits, Losses(torch.tensor(1.0), torch.tensor(value), {"kd": torch.tensor(value)}, None))
        guard.gradients(number, batch)
        guard.end(number, batch)

    step(0, 1.0)
    step(1, float("nan"))
    assert guard.bad is not None
    assert guard.bad == 1
    with pytest.raises(RunError, match="`kd` at step 2"):
        step(2, 1.0)
    step(3, float("inf"))
    with pytest.raises(RunError, match="`kd` at step 4"):
        guard.flush()
    guard.flush()


def test_large_but_finite_numbers_pass(experiment: Make) -> None:
    made = experiment()
    weight = made.model.fc.weight
    weight.register_hook(lambda grad: grad * 0 + 1e30)  # type: ignore[operator, union-attr]
    step = Step(made)
    batch = first_batch(made)
    step.begin(0)
    step.learner.learn(0, batch, step.look(batch), step.progress, last=True)
    step.learner.finite_check.gradients(0, batch)


@pytest.mark.parametrize(
    ("train", "words", "without"),
    [
        ({}, ["`optimizer.lr`", "`train.clip_grad_norm`"], ["fp32"]),
        ({"clip_grad_norm": 5.0}, ["`optimizer.lr`"], ["clip_grad_norm", "fp32"]),
        ({"precision": "bf16"}, ["`optimizer.lr`", "`train.clip_grad_norm`", '`train.precision = "fp32"`'], []),
    ],
)
def test_no_hint_recommends_what_is_there(
    experiment: Make, no_options: Options, monkeypatch: pytest.MonkeyPatch, train: dict[str, Any], words: list[str], without: list[str]
) -> None:
    monkeypatch.setattr(Term, "value", float("nan"))
    made = experiment(methods=[("odd", Term, no_options, 0.5)], **train)
    with pytest.raises(RunError) as caught:
        Step(made)(first_batch(made), 0)
    hint = caught.value.problems[0].hint
    assert all(word in hint for word in words)
    assert not any(word in hint for word in without)
