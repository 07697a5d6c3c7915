"""Learning rates by depth, and frozen stages: what they do to a run, alone and beside a method."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distillctl.api.method import Batch, Features, Head, Method, Phase, Progress, Setup, Wants
from distillctl.api.options import Options
from distillctl.builtin.kd import KD
from distillctl.builtin.kd_options import KDOptions
from distillctl.engine.experiment import Experiment
from distillctl.engine.loop import Loop
from distillctl.engine.step import Step
from distillctl.errors import ProfileError
from distillctl.rundir.directory import RunDirectory
from distillctl.testing.tiny_models import TinyCNN

Make = Callable[..., Experiment]
ALONE_OR_NOT = pytest.mark.parametrize("methods", [[], [("kd", KD, KDOptions(), 0.5)]], ids=["alone", "kd"])


@pytest.fixture
def start(tmp_path: Path) -> dict[str, Any]:
    """A student that starts from weights, with statistics that are not those of a fresh network."""
    torch.manual_seed(5)
    model = TinyCNN(4, width=4)
    model(torch.randn(8, 3, 8, 8))
    torch.save(model.state_dict(), tmp_path / "start.pt")
    return {"checkpoint": str(tmp_path / "start.pt")}


def weights(made: Experiment) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in made.model.state_dict().items()}


def moved(made: Experiment, steps: int = 1) -> dict[str, Tensor]:
    """By how much each weight moves in the first steps."""
    before, step = weights(made), Step(made, made.main)
    for number, batch in zip(range(steps), made.loader.epoch(0), strict=False):
        step(batch, number)
    return {name: made.model.get_parameter(name).detach() - before[name] for name, _ in made.model.named_parameters()}


def part(name: str) -> str:
    return name.partition(".")[0]


BY_STAGE = {"stem": 1 / 16, "stage1": 1 / 8, "stage2": 1 / 4, "stage3": 1 / 2}


@ALONE_OR_NOT
@pytest.mark.parametrize(
    ("optimizer", "factors"),
    [
        ({"head_lr_scale": 10.0}, {"stem": 1, "stage1": 1, "stage2": 1, "stage3": 1, "fc": 10}),
        ({"layer_decay": 0.5}, {**BY_STAGE, "fc": 1}),
        ({"head_lr_scale": 4.0, "layer_decay": 0.5, "decay": "weights"}, {**BY_STAGE, "fc": 4}),
    ],
)
def test_the_first_step_of_each_layer_is_so_many_times_as_long(
    experiment: Make, methods: Any, optimizer: dict[str, Any], factors: dict[str, float]
) -> None:
    decay = {key: value for key, value in optimizer.items() if key == "decay"}
    plain = moved(experiment(methods=methods, optimizer=decay))
    for name, step in moved(experiment(methods=methods, optimizer=optimizer)).items():
        torch.testing.assert_close(step, factors[part(name)] * plain[name], rtol=1e-3, atol=1e-7)


def test_what_methods_train_is_not_scaled_and_the_record_has_the_rate_of_the_schedule(experiment: Make) -> None:
    made = experiment(methods=[("own", Learns, None, 1.0)], optimizer={"layer_decay": 0.5})
    step = Step(made, made.main)
    step.learner.set_rate(0.1)
    rates = {id(p): group["lr"] for group in step.learner.optimizer.param_groups for p in group["params"]}
    owner: Any = made.objective.methods["own"]
    assert rates[id(owner.layer.weight)] == 0.1
    assert rates[id(made.model.get_parameter("stem.0.weight"))] == pytest.approx(0.1 / 16)
    assert step.learner.lr_scale == 1.0


def test_without_these_options_there_is_one_group(experiment: Make) -> None:
    made = experiment(methods=[])
    assert [[*group] for group in made.objective.parameter_groups()] == [["params"]]


class Learns(Method):
    """Compares the last map, through a layer, with the teacher; before that, a phase trains the student's body."""

    @classmethod
    def wants(cls, options: Any) -> Wants:
        return Wants(student=("last", "stage1"), teacher=("pooled",))

    def __init__(self, options: Options, setup: Setup) -> None:
        super().__init__(options, setup)
        self.early, self.layer = (nn.Linear(setup.student.channels("last"), 3) for _ in range(2))

    def phases(self) -> list[Phase]:
        return [Phase("body", 1, student=True, modules=("early",))]

    def forward_phase(self, phase: str, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        return self.early(student["last"].mean((2, 3))).square().mean()

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        return (self.layer(student["last"].mean((2, 3))) - teacher["pooled"][:, :3]).square().mean()


class OwnHead(Method):
    """Gives the student a classifier of its own."""

    def __init__(self, options: Options, setup: Setup) -> None:
        super().__init__(options, setup)
        width = setup.student.channels("last")
        self.layers = nn.Sequential(OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), linear=nn.Linear(width, 4)))

    @classmethod
    def wants(cls, options: Any) -> Wants:
        return Wants(student=("last",))

    def head(self) -> Head:
        return Head("last", self.layers)

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        return student["logits"].square().mean()


@ALONE_OR_NOT
@pytest.mark.parametrize(("freeze", "still"), [("stem", ["stem"]), ("stage2", ["stem", "stage1", "stage2"])])
def test_what_is_frozen_keeps_its_weights_and_statistics(
    experiment: Make, watcher: Any, tmp_path: Path, start: dict[str, Any], methods: Any, freeze: str, still: list[str]
) -> None:
    made = experiment(methods=methods, student={**start, "freeze": freeze}, epochs=1, ema=0.9)
    before = weights(made)
    Loop(made, RunDirectory.create(tmp_path / "run", profile=b"", resolved="", environment={}, state={}), watcher).train()
    changed = {part(name) for name, value in weights(made).items() if not torch.equal(value, before[name])}
    assert changed == {"stem", "stage1", "stage2", "stage3", "fc"} - {*still}
    assert {
        part(name) for name, value in weights(made).items() if "running" in name and not torch.equal(value, before[name])
    } == changed - {"fc"}
    loaded = torch.load(start["checkpoint"])
    assert all(torch.equal(value, loaded[name]) for name, value in before.items())


def test_what_is_frozen_computes_as_in_an_evaluation_and_the_rest_trains(experiment: Make, start: dict[str, Any]) -> None:
    made = experiment(student={**start, "freeze": "stage1"})
    modes = {name: module.training for name, module in made.model.named_modules()}
    assert {part(name) for name in modes if modes[name]} == {"", "stage2", "stage3", "fc"}
    made.model.eval()
    made.objective.enter()
    assert {name: module.training for name, module in made.model.named_modules()} == modes


def test_a_phase_trains_nothing_that_is_frozen(experiment: Make, start: dict[str, Any]) -> None:
    made = experiment(methods=[("own", Learns, None, 1.0)], student={**start, "freeze": "stage2"})
    before, step = weights(made), Step(made, made.parts[0])
    assert step.part.phase is not None
    step(next(iter(made.loader.epoch(0))), 0)
    assert {part(name) for name, value in weights(made).items() if not torch.equal(value, before[name])} == {"stage3"}


def test_a_continued_run_is_bit_equal(experiment: Make, watcher: Any, tmp_path: Path, start: dict[str, Any]) -> None:
    """Cut behind the first epoch of the main part."""

    def make() -> Experiment:
        student, optimizer = {**start, "freeze": "stage1"}, {"layer_decay": 0.5, "head_lr_scale": 3.0}
        return experiment(methods=[("own", Learns, None, 1.0)], student=student, optimizer=optimizer, epochs=2)

    def new_run(name: str) -> RunDirectory:
        return RunDirectory.create(tmp_path / name, profile=b"", resolved="", environment={}, state={"digest": "d" * 64})

    straight, cut, second = make(), make(), make()
    Loop(straight, new_run("straight"), watcher).train()
    run = new_run("cut")
    loop = Loop(cut, run, watcher)
    loop._is_over = lambda: loop.position.epoch >= 2  # type: ignore[method-assign]
    loop.train()
    again = Loop(second, run, watcher)
    assert again.position.epoch == 2
    again.train()
    ours, theirs = weights(straight), weights(second)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": {"freeze": "stage2"}}, "`student.freeze` would keep random weights"),
        ({"student": {"freeze": "stage4"}}, "the model `tiny_cnn` declares no stage `stage4`"),
        ({"student": {"freeze": "final"}}, "the model `tiny_cnn` declares no stage `final`"),
        ({"student": {"freeze": "stage3"}, "optimizer": {"layer_decay": 0.5}}, "`optimizer.layer_decay` has no effect beside"),
        ({"optimizer": {"head_lr_scale": 1.0}}, "a factor of 1 changes nothing"),
        ({"methods": [("own_head", OwnHead, None, 1.0)], "optimizer": {"head_lr_scale": 2.0}}, "a classifier of its own"),
    ],
)
def test_what_has_no_effect_or_no_meaning_is_refused(
    experiment: Make, start: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    if "random" not in message:
        changes = {**changes, "student": {**changes.get("student", {}), **start}}
    with pytest.raises(ProfileError) as caught:
        experiment(**changes)
    assert message in str(caught.value)
