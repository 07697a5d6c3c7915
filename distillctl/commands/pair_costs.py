"""What a method costs between a teacher and a student, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

import torch

from distillctl.api.data import ArrayImages, Splits, View
from distillctl.api.specs import MethodSpec, ModelSpec
from distillctl.api.task import Task
from distillctl.build.experiment import assemble
from distillctl.build.models import TeacherModel, build_model
from distillctl.commands.run_costs import method_costs
from distillctl.engine.step import Step
from distillctl.models.cost import macs, parameters
from distillctl.plugin.registry import Registry, load_class, load_options
from distillctl.profile.reading import from_tables

_TASK = "classification"
_IMAGES, _CHANNELS = 50_000, 3
"""Training images, as CIFAR has them, which decide on how many negatives there can be."""
_BATCH, _SMALL_BATCH, _SMALL = 64, 8, 64
"""Images whose losses are counted: as many as the benchmark of CIFAR has in a batch; of larger images than the last few."""


@dataclass(frozen=True)
class PairCosts:
    """What a method costs for a pair.

    size, classes: side length of the images in pixels, and how many classes there are. batch: images that were compared with one another,
        on which the cost of some methods depends.
    student, teacher, method: each `parameters`, and `macs`, multiply-accumulates of an image, forward; those of the method are beside the
        networks', and its parameters are those that it trains itself. A method that cannot be counted has no `macs`. No teacher where
        none is needed.
    inner: the method that it wraps here; empty where it wraps none.
    """

    size: int
    classes: int
    batch: int
    student: Mapping[str, int]
    teacher: Mapping[str, int] | None
    method: Mapping[str, int]
    inner: str = ""

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {name: value if isinstance(value, int | str | None) else dict(value) for name, value in vars(self).items()}


def pair_costs(method: MethodSpec, teacher: ModelSpec, student: ModelSpec, registry: Registry) -> PairCosts:
    """Counts on images of noise, of the student's size and with its classes, with the defaults that the method has for the pair.

    Raises:
        DistillError: the method cannot work with this pair.
    """
    size, classes = student.input_size, student.classes
    count = _BATCH if size <= _SMALL else _SMALL_BATCH
    profile = from_tables(_tables(method, teacher, student, count), registry)
    task = _task(registry, size, classes)
    network = None
    if method.needs_teacher:
        network = TeacherModel(teacher, build_model(task, teacher, load_options(teacher)()), teacher.name, None)
    device = torch.device("cpu")
    with closing(assemble(profile, task, network, device)) as experiment:
        step = Step(experiment)
        found = method_costs(step, next(iter(experiment.loader.epoch(0))))
        shape = (_CHANNELS, size, size)
        sides = {name: {"parameters": parameters(model), "macs": macs(model, shape)} for name, model in _models(experiment.model, network)}
    return PairCosts(size, classes, count, sides["student"], sides.get("teacher"), found, method.inner)


def _models(student: torch.nn.Module, teacher: TeacherModel | None) -> list[tuple[str, torch.nn.Module]]:
    return [("student", student), *([] if teacher is None else [("teacher", teacher.model)])]


def _tables(method: MethodSpec, teacher: ModelSpec, student: ModelSpec, batch: int) -> dict[str, dict[str, object]]:
    return {
        "dataset": {"name": "npz", "root": "noise"},
        "student": {"name": student.qualified},
        **({"teacher": {"name": teacher.qualified, "checkpoint": "noise.pt"}} if method.needs_teacher else {}),
        "method": {"name": method.name},
        "train": {"epochs": 1, "batch_size": batch},
    }


def _task(registry: Registry, size: int, classes: int) -> Task:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1, size, size, _CHANNELS), generator=draw, dtype=torch.uint8)
    pixels = pixels.expand(_IMAGES, -1, -1, -1)  # one in memory
    images = ArrayImages(pixels, torch.arange(_IMAGES) % classes)
    names = tuple(str(number) for number in range(classes))
    data = Splits(images, None, None, names, (0.5,) * _CHANNELS, (0.25,) * _CHANNELS, View(size), "noise")
    return load_class(registry.tasks.get(_TASK), Task, "task")(data)
