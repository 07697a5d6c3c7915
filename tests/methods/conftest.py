"""Profiles over small networks of every kind: the model zoos, and tiny ones on tokens."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from distillctl import ArrayImages, DatasetSpec, Splits, View, hookimpl
from distillctl.build.experiment import assemble
from distillctl.build.models import TeacherModel, build_model
from distillctl.engine.experiment import Experiment, Part
from distillctl.engine.step import Step
from distillctl.plugin.catalog import Plugin
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.profile.schema import Profile
from distillctl.testing import TINY_MODELS, make_task, options_of

CLASSES = 6


def noise() -> Splits:
    """Images whose brightness tells the class, of 32 pixels."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % CLASSES

    def images() -> ArrayImages:
        pixels = torch.randint(0, 100, (24, 32, 32, 3), generator=draw) + labels[:, None, None, None] * 25
        return ArrayImages(pixels.to(torch.uint8), labels)

    return Splits(images(), None, images(), tuple("abcdef"), (0.5,) * 3, (0.25,) * 3, View(32), "noise")


NOISE = DatasetSpec(name="noise", summary="made up", implementation="nowhere:noise")  # never loaded: `Bench` has its own


@pytest.fixture(scope="session")
def registry() -> Registry:
    """All plugins, the tiny models, and made-up images."""
    registry = Registry.load()
    assert not [plugin for plugin in registry.plugins if plugin.problem]
    module = SimpleNamespace(register_model=hookimpl(lambda: list(TINY_MODELS)), register_dataset=hookimpl(lambda: NOISE), __name__="tiny")
    registry.add(Plugin("tiny", "tiny", "0"), lambda: module)
    return registry


SGD = '[optimizer]\nname = "sgd"\nlr = 0.01'
PROFILE = """
[dataset]
name = "noise"
[student]
name = "{student}"
{extra}
{teacher}
{methods}
{optimizer}
[train]
epochs = 2
batch_size = 8
{train}
"""


class Bench:
    """Makes profiles and experiments of a pair and some methods."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.registry = registry
        self.folder = folder
        self.splits = noise()
        self._teachers: dict[tuple[str, int], TeacherModel] = {}

    def profile(
        self, methods: str, student: str, teacher: str | tuple[str, ...] | None, *, extra: str = "", optimizer: str = SGD, train: str = ""
    ) -> Profile:
        """A checked profile; `extra` and `train` are more lines of the student's table and of `[train]`. teacher: or several."""
        path = self.folder / "profile.toml"
        weights = self.folder / "teacher.pt"
        weights.touch()
        names = (teacher,) if isinstance(teacher, str) else teacher or ()
        table = "\n".join(f'[[teacher]]\nname = "{name}"\ncheckpoint = "{weights}"\nallow_untrained = true' for name in names)
        path.write_text(PROFILE.format(student=student, extra=extra, teacher=table, methods=methods, optimizer=optimizer, train=train))
        return load(path, registry=self.registry)

    def teacher(self, name: str, number: int = 0) -> TeacherModel:
        """A network with fresh weights, the same one for every method; another one where it is not the first of several."""
        if (name, number) not in self._teachers:
            spec = self.registry.models.get(name)
            torch.manual_seed(1 + number)
            model = build_model(make_task(self.splits), spec, options_of(spec))
            self._teachers[name, number] = TeacherModel(spec, model, spec.name, None)
        return self._teachers[name, number]

    def experiment(self, profile: Profile) -> Experiment:
        """Everything built, on the CPU."""
        specs = [choice.spec for choice in profile.teachers if choice.spec is not None]
        assert len(specs) == len(profile.teachers)
        teachers = [self.teacher(spec.qualified, number) for number, spec in enumerate(specs)]
        return assemble(profile, make_task(self.splits), teachers, torch.device("cpu"))

    def run(self, profile: Profile, steps: int = 2) -> tuple[Experiment, dict[str, dict[str, float]]]:
        """Some steps of every part; the terms of each part. Whoever calls closes the experiment."""
        experiment = self.experiment(profile)
        terms = {part.name: self.steps(experiment, steps, part) for part in experiment.parts}
        return experiment, terms

    def steps(self, experiment: Experiment, count: int, part: Part | None = None) -> dict[str, float]:
        """Some steps of one part, by default the main one; its terms."""
        step = Step(experiment, part)
        for number, batch in zip(range(count), experiment.loader.epoch(0), strict=False):
            step(batch, number)
        return step.learner.meter.read().terms  # raises where one is not finite


@pytest.fixture(scope="session")
def bench(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One for all tests, so that teachers are built once."""
    return Bench(registry, tmp_path_factory.mktemp("methods"))
