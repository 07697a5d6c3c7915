"""What a step sets before it is taken: rates, progress, and the seed of whatever is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distillctl.api.method import Batch, Features, Method, Phase, Progress, Setup
from distillctl.api.options import Options
from distillctl.data import Share, train_loader
from distillctl.engine.experiment import Experiment, Part
from distillctl.engine.schedule import schedule
from distillctl.engine.step import Step
from distillctl.errors import RunError

Make = Callable[..., Experiment]
STEPS = 3  # of an epoch of 40 images in batches of 16
EPOCHS = 4


def rates(experiment: Experiment, name: str, **more: Any) -> list[float]:
    """The rate of every step of a run with this schedule."""
    whole = schedule(name, 0.1, **more)
    step = Step(experiment, Part("main", 0, EPOCHS, whole))
    found = []
    for number in range(STEPS * EPOCHS):
        step.begin(number)
        found.append(step.learner.optimizer.param_groups[0]["lr"])
    return found


def test_the_rate_of_every_step_of_a_cosine(experiment: Make) -> None:
    """The first step has the base rate, and the last one is a step away from the end."""
    count = STEPS * EPOCHS
    expected = [0.01 + (0.1 - 0.01) * 0.5 * (1 + math.cos(math.pi * step / count)) for step in range(count)]
    assert rates(experiment(epochs=EPOCHS), "cosine", min_lr=0.01) == pytest.approx(expected, rel=1e-12)


def test_the_rate_of_every_step_of_a_staircase(experiment: Make) -> None:
    """A milestone at half of the run holds from the first step of its second half."""
    expected = [0.1] * 6 + [0.01] * 3 + [0.001] * 3
    assert rates(experiment(epochs=EPOCHS), "step", milestones=[0.5, 0.75]) == pytest.approx(expected)


def test_the_rate_of_every_step_of_a_warm_up(experiment: Make) -> None:
    expected = [0.0, 0.1 / 3, 0.2 / 3] + [0.1] * 9
    assert rates(experiment(epochs=EPOCHS), "constant", warmup=0.25) == pytest.approx(expected)


class Draws(Method):
    """Keeps what it draws, and what it is told of the progress; its own parameters learn at another rate."""

    def __init__(self, options: Options, setup: Setup) -> None:
        super().__init__(options, setup)
        self.scale = nn.Parameter(torch.ones(()))
        self.drawn: list[float] = []
        self.told: list[tuple[float, float]] = []

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [self.scale], "lr_scale": 0.25}]

    def phases(self) -> Sequence[Phase]:
        return (Phase("early", 1, student=True),)

    def _term(self, student: Features, progress: Progress) -> Tensor:
        self.drawn.append(float(torch.rand(())))
        self.told.append((float(progress.epoch), float(progress.fraction)))
        return student["logits"].square().mean() * self.scale

    def forward_phase(self, phase: str, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        return self._term(student, progress)

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        return self._term(student, progress)


def trained(experiment: Experiment, part: Part) -> Draws:
    method = experiment.objective.weighted[0].method
    assert isinstance(method, Draws)
    method.drawn, method.told = [], []
    step = Step(experiment, part)
    number = 0
    for epoch in range(part.epochs):
        for batch in experiment.loader.epoch(part.begin + epoch):
            step(batch, number)
            number += 1
    return method


@pytest.fixture
def drawing(experiment: Make, no_options: Options) -> Experiment:
    return experiment(methods=[("draws", Draws, no_options, 1.0)], epochs=2)


def test_groups_scale_the_rate(drawing: Experiment) -> None:
    step = Step(drawing, drawing.main)
    step.begin(0)
    groups = step.learner.optimizer.param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.05, 0.05 * 0.25])


def test_every_step_of_every_part_draws_other_numbers_and_the_same_again(drawing: Experiment) -> None:
    early, main = ([*trained(drawing, part).drawn] for part in drawing.parts)
    assert len({*early, *main}) == STEPS * 3
    assert early == trained(drawing, drawing.parts[0]).drawn


def test_progress_counts_epochs_from_1_within_its_part(drawing: Experiment) -> None:
    early, main = ([*trained(drawing, part).told] for part in drawing.parts)
    assert [epoch for epoch, _ in early] == [1] * STEPS
    assert [epoch for epoch, _ in main] == [1] * STEPS + [2] * STEPS
    assert [fraction for _, fraction in main] == pytest.approx([step / 6 for step in range(6)])


def test_the_teacher_is_asked_once_whoever_looks(experiment: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = experiment()
    assert made.teacher is not None
    asked: list[tuple[str, ...]] = []
    look = made.teacher.look
    monkeypatch.setattr(made.teacher, "look", lambda batch, norms: (asked.append(tuple(norms)), look(batch, norms))[1])
    Step(made)(next(iter(made.loader.epoch(0))), 0)
    assert asked == [("running",)]


def test_a_task_that_draws_is_given_a_number_for_each_image(experiment: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It depends on image, step and seed, and on nothing else: pieces of a batch have those of the whole."""

    def given(parts: int, at: int, draws: bool = True) -> dict[int, int]:
        made = experiment()
        monkeypatch.setattr(type(made.task), "draws", draws)
        made.loader = train_loader(made.splits, batch_size=16, seed=0, device=made.device, workers=0, share=Share(parts=parts))
        found: list[Batch] = []
        forward = made.task.forward
        monkeypatch.setattr(made.task, "forward", lambda student, batch: (found.append(batch), forward(student, batch))[1])
        Step(made)(next(iter(made.loader.epoch(0))), at)
        assert len(found) == parts
        if not draws:
            assert all(batch.seeds is None for batch in found)
            return {}
        pairs = [(batch.index.tolist(), batch.seeds.tolist()) for batch in found if batch.seeds is not None]
        return {image: seed for index, seeds in pairs for image, seed in zip(index, seeds, strict=True)}

    whole = given(1, 0)
    assert len(set(whole.values())) == 16
    assert given(3, 0) == whole
    assert not set(given(1, 1).values()) & set(whole.values())
    given(1, 0, draws=False)


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_what_a_model_raises_in_a_step_names_it(experiment: Make, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    made = experiment()
    assert made.network is not None
    model = made.model if who == "student" else made.network.model

    def refuse(*_: Any) -> Any:
        raise RuntimeError("shapes cannot be multiplied")

    step = Step(made)
    monkeypatch.setattr(model, "forward", refuse)
    with pytest.raises(RunError, match=rf"the {who} `\S*` cannot take images of shape \(3, 8, 8\): shapes cannot be multiplied"):
        step(next(iter(made.loader.epoch(0))), 0)
    step._first = False  # later a RuntimeError is about something else
    with pytest.raises(RuntimeError, match=r"^shapes"):
        step(next(iter(made.loader.epoch(0))), 1)
