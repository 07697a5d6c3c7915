"""An experiment on made-up images, small enough for one epoch in a few milliseconds, assembled from a profile as `train` does it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from distillctl import DatasetSpec, MethodSpec, hookimpl
from distillctl.api.data import ArrayImages, Splits, View
from distillctl.api.method import Method
from distillctl.api.options import Options
from distillctl.api.tracker import Tracker
from distillctl.build.data import task_class
from distillctl.build.experiment import assemble
from distillctl.build.models import TeacherModel, build_model
from distillctl.builtin import classification as builtin_tasks
from distillctl.builtin import methods as builtin_methods
from distillctl.builtin import optimizers as builtin_optimizers
from distillctl.builtin.kd import KD
from distillctl.builtin.kd_options import KDOptions
from distillctl.engine.experiment import Experiment
from distillctl.plugin.catalog import Plugin
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.profile.schema import Profile
from distillctl.profile.writing import write_toml
from distillctl.testing import TINY_CNN, TINY_MODELS, TINY_WIDE, options_of

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


def build_splits(options: Options, seed: int) -> Splits:
    """What the data set `bright` of the registry builds."""
    return make_splits()


class Bench:
    """A registry of a few test objects, and experiments as `train` assembles them from profiles."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = Registry()
        self.module = ModuleType("engine_bench")
        self.module.build_splits = build_splits  # type: ignore[attr-defined]
        data = DatasetSpec(name="bright", summary="for tests", implementation="engine_bench:build_splits")
        self._add(builtin_tasks)
        self._add(builtin_methods)
        self._add(builtin_optimizers)
        self._add(SimpleNamespace(register_dataset=hookimpl(lambda: data), register_model=hookimpl(lambda: list(TINY_MODELS))))
        (folder / "teacher.pt").touch()  # a file must be named; `make` builds the teacher itself

    def _add(self, hooks: Any) -> None:
        name = f"part{len(self.registry.plugins)}"
        self.registry.add(Plugin(name, name, "0"), lambda: hooks)

    def method(self, name: str, cls: type[Method], options: Options | None, weight: float) -> dict[str, Any]:
        """The `[[method]]` table of a class, which the registry knows from now on."""
        if name not in self.registry.methods:
            place = f"{cls.__name__}{len(vars(self.module))}"
            setattr(self.module, place, cls)
            spec = MethodSpec(
                name=name,
                kind="logits",
                summary="for tests",
                implementation=f"engine_bench:{place}",
                gives_head=cls.head is not Method.head,
            )
            self._add(SimpleNamespace(register_method=hookimpl(lambda: spec)))
        return {"name": name, "weight": weight, **({} if options is None else options.model_dump(exclude_unset=True))}

    def profile(
        self, methods: list[dict[str, Any]], train: dict[str, Any], evaluate_every: int, student: dict[str, Any], optimizer: dict[str, Any]
    ) -> Profile:
        """A checked profile."""
        tables = {
            "dataset": {"name": "bright"},
            "student": {"name": TINY_CNN.name, "width": 4, **student},
            "teacher": {"name": TINY_WIDE.name, "checkpoint": str(self.folder / "teacher.pt"), "allow_untrained": True},
            "method": methods,
            "optimizer": {"name": "sgd", "lr": 0.05, **optimizer},
            "train": {"batch_size": 16, "workers": 0, **train},
            "evaluate": {"batch_size": 16, "every": evaluate_every},
        }
        if methods[0]["name"] == "none":
            del tables["teacher"]
        path = self.folder / "profile.toml"
        path.write_text(write_toml(tables))
        return load(path, registry=self.registry)

    def make(
        self,
        *,
        methods: list[tuple[str, type[Method], Any, float]] | None = None,
        val: bool = True,
        task_weight: float = 0.5,
        epochs: int = 3,
        evaluate_every: int = 1,
        save_every: float = 300.0,
        student: Mapping[str, Any] = MappingProxyType({}),
        optimizer: Mapping[str, Any] = MappingProxyType({}),
        **train: Any,
    ) -> Experiment:
        """An experiment; `student`, `optimizer` and `train` have more keys of these tables."""
        chosen = [("kd", KD, KDOptions(), 0.5)] if methods is None else methods
        tables = [self.method(*one) for one in chosen] or [{"name": "none"}]
        tables[0]["task_weight"] = task_weight
        profile = self.profile(tables, {"epochs": epochs, **train}, evaluate_every, dict(student), dict(optimizer))
        task = task_class(profile, self.registry)(make_splits(val), label_smoothing=profile.train.label_smoothing)
        teacher = None
        if profile.teacher is not None:
            torch.manual_seed(1)
            teacher = TeacherModel(TINY_WIDE, build_model(task, TINY_WIDE, options_of(TINY_WIDE)), TINY_WIDE.name, None)
        made = assemble(profile, task, teacher, CPU)
        made.settings = replace(made.settings, save_every=save_every)  # 0: after each step, which no profile asks for
        made.digest = "d" * 64
        return made


class Silent(Tracker):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def epoch(self, record: Mapping[str, Any]) -> None:
        self.records.append(dict(record))


@pytest.fixture
def experiment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Experiment]]:
    """Makes experiments, and closes them at the end."""
    bench = Bench(tmp_path_factory.mktemp("bench"))
    monkeypatch.setitem(sys.modules, "engine_bench", bench.module)
    made: list[Experiment] = []

    def make(**changes: Any) -> Experiment:
        made.append(bench.make(**changes))
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
