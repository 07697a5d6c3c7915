"""What a method returns is looked at in the first step: one sentence names the method, the term, what came and what is expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distillctl.api.method import Batch, Features, Method, Phase, Progress, Setup, Wants, Wrapper
from distillctl.engine.experiment import Experiment
from distillctl.engine.step import Step
from distillctl.errors import PluginError, RunError
from distillctl.testing import make_batch, make_features, make_progress, make_setup

Make = Callable[..., Experiment]
EXPECTED = "0-dim float tensor with a gradient"


def method(give: Callable[[Tensor], Any], **more: Any) -> type[Method]:
    """A method that returns what `give` makes of the student's logits."""

    class Gives(Method):
        def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Any:
            return give(student["logits"])

        def metrics(self) -> Any:
            return more.get("metrics", {})

    return Gives


def first_step(made: Experiment, steps: int = 1) -> Step:
    step = Step(made, made.parts[0])
    for number, batch in zip(range(steps), made.loader.epoch(0), strict=False):
        step(batch, number)
    return step


def compile_step(step: Step, fullgraph: bool = False) -> None:
    torch._dynamo.reset()
    step.learner.data_parallel.forward = torch.compile(step.learner.objective, dynamic=False, backend="eager", fullgraph=fullgraph)


WRONG = {
    "None": (lambda logits: None, "returned None"),
    "float": (lambda logits: 0.5, "returned a float"),
    "rows": (lambda logits: logits.square().mean(1), r"returned a tensor of shape \(16,\)"),
    "one": (lambda logits: logits.square().mean()[None], r"returned a tensor of shape \(1,\)"),
    "list": (lambda logits: [logits.mean(), logits.std()], "returned a list"),
    "tuple": (lambda logits: (logits.mean(), {}), "returned a tuple"),
    "whole number": (lambda logits: logits.argmax(), "returned a 0-dim int64 tensor"),
    "nothing": (lambda logits: {}, "returned no terms"),
    "term": (lambda logits: {"near": logits.mean(), "far": 1.0}, "returned a float as its term `far`"),
    "term of rows": (lambda logits: {"far": logits.mean(1)}, r"returned a tensor of shape \(16,\) as its term `far`"),
    "name": (lambda logits: {1: logits.mean()}, "returned a term under 1"),
}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch, where a raise breaks its graph
@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_is_not_a_term_is_told_in_a_sentence(experiment: Make, case: str, compiled: bool) -> None:
    give, message = WRONG[case]
    made = experiment(methods=[("odd", method(give), None, 1.0)])
    step = Step(made)
    if compiled:
        compile_step(step)
    with pytest.raises(PluginError, match=f"`odd` {message}") as caught:
        step(next(iter(made.loader.epoch(0))), 0)
    if case not in ("nothing", "name"):
        assert EXPECTED in str(caught.value)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_term_without_a_gradient_is_refused_and_a_zero_is_not(experiment: Make, compiled: bool, accumulate: int) -> None:
    def run(name: str, give: Callable[[Tensor], Any], steps: int) -> None:
        made = experiment(methods=[(name, method(give), None, 1.0)], accumulate=accumulate)
        step = Step(made)
        if compiled:
            compile_step(step, fullgraph=True)
        for number, batch in zip(range(steps), made.loader.epoch(0), strict=False):
            step(batch, number)

    with pytest.raises(PluginError, match=f"the term `odd` is .* without a gradient, .* where a {EXPECTED} is expected"):
        run("odd", lambda logits: logits.detach().square().mean(), 1)
    with pytest.raises(PluginError, match=r"the term `two\.far` is"):
        run("two", lambda logits: {"near": logits.mean(), "far": logits.detach().square().mean()}, 1)
    run("few", lambda logits: {"near": logits.mean(), "none_of_these_rows": logits.new_zeros(())}, 2)


def test_later_steps_read_no_value(experiment: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A constant is read in the first step alone, since reading waits for the device."""
    made = experiment(methods=[("odd", method(lambda logits: {"near": logits.mean(), "far": logits.new_zeros(())}), None, 1.0)])
    step = Step(made)
    read: list[int] = []
    original = Tensor.__float__
    monkeypatch.setattr(Tensor, "__float__", lambda self: read.append(number) or original(self))
    monkeypatch.setattr(step.learner.finite_check, "losses", lambda *_: None)
    monkeypatch.setattr(step.learner.finite_check, "gradients", lambda *_: None)
    for number, batch in zip(range(2), made.loader.epoch(0), strict=False):
        step(batch, number)
    assert set(read) == {0}


def test_a_step_that_nothing_learns_from_is_told(experiment: Make) -> None:
    made = experiment(methods=[("odd", method(lambda logits: logits.new_zeros(())), None, 1.0)], task_weight=0.0)
    with pytest.raises(RunError, match="nothing in this step has a gradient"):
        first_step(made)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (None, "returned None"),
        ({"t": 1.0}, "returned a float as `t`"),
        ({"t": torch.ones(1)}, r"returned a tensor of shape \(1,\) as `t`"),
        ({"t": [1]}, "returned a list as `t`"),
        ([torch.ones(())], "returned a list"),
    ],
)
def test_metrics_are_looked_at_in_the_first_step(experiment: Make, metrics: Any, message: str) -> None:
    made = experiment(methods=[("odd", method(lambda logits: logits.square().mean(), metrics=metrics), None, 1.0)])
    with pytest.raises(PluginError, match=f"`metrics` of the method `odd` {message}, where a .* is expected"):
        first_step(made)


class Early(Method):
    """Learns in a phase; what it gives is set from outside."""

    gives: Any = None

    @classmethod
    def wants(cls, options: Any) -> Wants:
        return Wants(teacher=("pooled",))

    def __init__(self, options: Any, setup: Setup) -> None:
        super().__init__(options, setup)
        self.first = nn.Linear(1, 1)

    def phases(self) -> list[Phase]:
        return [Phase("warm", 1, modules=("first",))]

    def forward_phase(self, phase: str, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Any:
        return type(self).gives(self.first(teacher["pooled"][:, :1]))

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        return student["logits"].square().mean()


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda value: None, "the method `early` in its phase `warm` returned None"),
        (lambda value: value, r"the method `early` in its phase `warm` returned a tensor of shape \(16, 1\)"),
        (lambda value: {}, "`early.warm` returned no terms"),
        (lambda value: value.detach().square().mean() + 1, "the term `early.warm` is"),
    ],
)
def test_phases_are_looked_at(experiment: Make, monkeypatch: pytest.MonkeyPatch, give: Any, message: str) -> None:
    monkeypatch.setattr(Early, "gives", staticmethod(give))
    with pytest.raises(PluginError, match=message):
        first_step(experiment(methods=[("early", Early, None, 1.0)]))


class Around(Wrapper):
    """Passes on what the inner method returns."""

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Any:
        return self.inner.terms(batch, student, teacher, progress)


def test_a_wrapped_method_is_named_itself() -> None:
    setup = make_setup({}, {})
    inner = method(lambda logits: logits.mean(1))(None, setup)
    around = Around(None, setup, inner)
    around.called, inner.called = "around", "odd"
    features = make_features(setup.student, 4)
    with pytest.raises(PluginError, match=r"the method `odd` returned a tensor of shape \(4,\)"):
        around.terms(make_batch(setup, 4), features, features, make_progress(1.0))


def test_the_label_loss_of_a_task_is_looked_at(experiment: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = experiment()
    monkeypatch.setattr(type(made.task), "label_loss", lambda *_: torch.ones(3))
    with pytest.raises(PluginError, match=rf"`label_loss` of Classification returned a tensor of shape \(3,\), where a {EXPECTED}"):
        first_step(made)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("phases", lambda self: None, "`phases` of the method `odd` returned None, where a list of `Phase` is expected"),
        ("phases", lambda self: ["warm"], "`phases` of the method `odd` returned a list"),
        ("parameter_groups", lambda self: {"params": []}, "`parameter_groups` of the method `odd` returned a dict"),
        ("wants", classmethod(lambda cls, options: None), "`wants` of the method `odd` returned None, where `Wants` is expected"),
        ("wants", classmethod(lambda cls, options: Wants(student="last")), "has 'last' for the student, where a tuple"),  # type: ignore[arg-type]
    ],
)
def test_what_a_method_says_of_itself_is_looked_at(experiment: Make, name: str, value: Any, message: str) -> None:
    odd = method(lambda logits: logits.square().mean())
    setattr(odd, name, value)
    with pytest.raises(PluginError, match=message):
        experiment(methods=[("odd", odd, None, 1.0)])


def test_the_sums_stay_the_same_without_terms(experiment: Make) -> None:
    """`none` has no terms and is not evaluated."""
    step = first_step(experiment(methods=[]))
    assert not step.learner.objective.active
    assert list(step.learner.meter.read().terms) == ["task"]
