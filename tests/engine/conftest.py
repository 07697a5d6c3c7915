"""An experiment on made-up images, small enough for one epoch in a few milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch

from distillctl.api.data import ArrayImages, Splits, View
from distillctl.api.method import Method, Setup
from distillctl.api.options import Options
from distillctl.api.tracker import Tracker
from distillctl.builtin.classification_task import Classification
from distillctl.builtin.kd import KD
from distillctl.builtin.kd_options import KDOptions
from distillctl.builtin.optimizer_builders import build_sgd
from distillctl.builtin.optimizer_options import SGDOptions
from distillctl.data import eval_loader, train_loader
from distillctl.engine.experiment import MAIN, Experiment, Part, Settings
from distillctl.engine.objective import Objective, Weighted
from distillctl.engine.schedule import schedule
from distillctl.engine.teacher import LiveTeacher
from distillctl.models.features import Tapped
from distillctl.plugin.registry import load
from distillctl.testing import TINY_CNN, TINY_WIDE

CPU = torch.device("cpu")


def images(count: int, seed: int, classes: int = 4) -> ArrayImages:
    """Noise whose mean brightness tells the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    noise = torch.randint(0, 120, (count, 8, 8, 3), generator=generator)
    return ArrayImages((noise + labels[:, None, None, None] * 40).to(torch.uint8), labels)


def make_splits(val: bool = True) -> Splits:
    return Splits(
        train=images(40, 1),
        val=images(16, 2) if val else None,
        test=images(20, 3),
        classes=("a", "b", "c", "d"),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        view=View(8, "crop_flip", padding=1),
        description="made up",
    )


def make_experiment(
    *,
    methods: list[tuple[str, type[Method], Any, float]] | None = None,
    val: bool = True,
    task_weight: float = 0.5,
    epochs: int = 3,
    lr: float = 0.05,
    label_smoothing: float = 0.0,
    **settings: Any,
) -> Experiment:
    torch.manual_seed(0)
    splits = make_splits(val)
    task = Classification(splits, label_smoothing=label_smoothing)
    build = {spec.name: load(spec.implementation, spec.name) for spec in (TINY_CNN, TINY_WIDE)}
    options = load(TINY_CNN.options, "tiny")
    student = Tapped(build[TINY_CNN.name](TINY_CNN.name, 4, options(width=4)), TINY_CNN, ["last"])
    teacher = Tapped(build[TINY_WIDE.name](TINY_WIDE.name, 4, options()), TINY_WIDE, ["last", "pooled"])
    teacher.model.eval().requires_grad_(False)
    shape = (3, 8, 8)
    setup = Setup(
        student.side(student.probe(shape), "student"), teacher.side(teacher.probe(shape), "teacher"), 4, splits.train.labels, epochs
    )
    chosen = [("kd", KD, KDOptions(), 0.5)] if methods is None else methods
    weighted = [Weighted(name, cls(opts, setup), weight) for name, cls, opts, weight in chosen]
    phases: list[Part] = []
    for entry in weighted:
        for phase in entry.method.phases():
            rate = schedule("constant", lr if phase.lr is None else phase.lr)
            phases.append(Part(f"{entry.name}.{phase.name}", sum(p.epochs for p in phases), phase.epochs, rate, entry.name, phase))
    objective = Objective(task, student, weighted, task_weight=task_weight, teacher=teacher)
    return Experiment(
        task=task,
        teacher=LiveTeacher(task, teacher, device=CPU, precision=settings.get("precision", "fp32")),
        objectives=(objective,),
        loader=train_loader(splits, batch_size=16, seed=0, device=CPU, workers=0),
        evaluation=lambda chosen: eval_loader(splits, chosen, batch_size=16, device=CPU, workers=0),
        build_optimizer=lambda groups: build_sgd(groups, SGDOptions(lr=lr)),
        parts=(*phases, Part(MAIN, sum(p.epochs for p in phases), epochs, schedule("constant", lr))),
        settings=Settings(seed=0, epochs=epochs, **settings),
        device=CPU,
        digest="d" * 64,
    )


class Silent(Tracker):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[dict[str, Any]] = []

    def epoch(self, record: Mapping[str, Any]) -> None:
        self.records.append(dict(record))


@pytest.fixture
def experiment() -> Iterator[Callable[..., Experiment]]:
    """Makes experiments, and closes them at the end."""
    made: list[Experiment] = []

    def make(**changes: Any) -> Experiment:
        made.append(make_experiment(**changes))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def watcher() -> Silent:
    return Silent()


@pytest.fixture
def no_options() -> Options:
    return Options()
