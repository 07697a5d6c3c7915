"""Made-up inputs for methods: sides with real classifiers, setups, batches and features of any shape, from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distillctl.api.data import ArrayImages, Splits, View
from distillctl.api.method import Batch, Progress, Setup, Side
from distillctl.api.task import Task
from distillctl.plugin.registry import load

Shapes = Mapping[str, tuple[int, ...]]
"""Shape without the batch dimension of every feature, shallow to deep; the names as in `distillctl.Wants`."""


class TinyHead(nn.Module):
    """Stands for a classifier where only shapes matter: pools a map (B, C, H, W) or takes (B, C), then one Linear layer `fc`."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) or (B, C) → logits (B, num_classes)."""
        logits: Tensor = self.fc(features.flatten(2).mean(2) if features.ndim == 4 else features)
        return logits


def stage_shapes(*stages: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    """Shapes of all features of a network with these stages (C, H, W): `stage1` …, `stage1:pre` …, `last`, `final` and `pooled`."""
    shapes: dict[str, tuple[int, ...]] = {f"stage{k}": stage for k, stage in enumerate(stages, 1)}
    shapes |= {f"stage{k}:pre": stage for k, stage in enumerate(stages, 1)}
    return {**shapes, "last": stages[-1], "final": stages[-1], "pooled": (stages[-1][0],)}


class Geometry(NamedTuple):
    """Feature shapes of a student and a teacher."""

    student: Shapes
    teacher: Shapes


GEOMETRIES: Mapping[str, Geometry] = {
    "wider": Geometry(stage_shapes((6, 8, 8), (8, 4, 4), (12, 2, 2)), stage_shapes((8, 8, 8), (12, 4, 4), (16, 2, 2))),
    "same": Geometry(stage_shapes((6, 8, 8), (8, 4, 4), (12, 2, 2)), stage_shapes((6, 8, 8), (8, 4, 4), (12, 2, 2))),
    "narrower": Geometry(stage_shapes((8, 8, 8), (12, 4, 4), (16, 2, 2)), stage_shapes((6, 8, 8), (8, 4, 4), (12, 2, 2))),
    "teacher_maps_larger": Geometry(stage_shapes((6, 4, 4), (8, 2, 2), (12, 1, 1)), stage_shapes((8, 8, 8), (12, 4, 4), (16, 2, 2))),
    "student_maps_larger": Geometry(stage_shapes((6, 8, 8), (8, 4, 4), (12, 3, 3)), stage_shapes((8, 4, 4), (12, 2, 2), (16, 2, 2))),
    "oblong": Geometry(stage_shapes((6, 8, 6), (8, 4, 3), (12, 3, 2)), stage_shapes((8, 6, 8), (12, 3, 4), (16, 2, 3))),
    "fewer_stages": Geometry(stage_shapes((6, 8, 8), (12, 2, 2)), stage_shapes((8, 8, 8), (12, 4, 4), (16, 2, 2))),
}
"""Pairs of shapes that methods meet, by name. `wider` is the usual one: a teacher with more channels and maps of the same size."""


def make_side(name: str, shapes: Shapes, num_classes: int = 10) -> Side:
    """A side with these feature shapes; its model is a `TinyHead`, its classifier that head's Linear layer.

    The classifier takes the width of `pooled`, or else of the last shape, or else 8.
    """
    widths = [shape[0] for key, shape in shapes.items() if key != "logits"]
    model = TinyHead(shapes["pooled"][0] if "pooled" in shapes else widths[-1] if widths else 8, num_classes)
    stages = tuple(dict.fromkeys(key.partition(":")[0] for key in shapes if key.startswith("stage")))
    side = Side(name, model, {**shapes, "logits": (num_classes,)}, stages, model.fc, dict.fromkeys(shapes, "fc"))
    sample = make_features(side, 2)
    if {"final", "pooled"} <= sample.keys() and sample["final"].ndim == 4:
        sample["pooled"] = sample["final"].mean((2, 3))
    return replace(side, sample=sample)


def make_setup(student_shapes: Shapes, teacher_shapes: Shapes | None, num_classes: int = 10, num_data: int = 96, epochs: int = 20) -> Setup:
    """A setup as an engine would hand it to a method.

    student_shapes, teacher_shapes: features of either side; None means that there is no teacher.
    num_data: length of the training split; every class occurs if num_data ≥ num_classes. Labels are shuffled.
    """
    order = torch.randperm(num_data, generator=torch.Generator().manual_seed(0))
    labels = (torch.arange(num_data) % num_classes)[order]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        student = make_side("tiny_student", student_shapes, num_classes)
        teacher = None if teacher_shapes is None else make_side("tiny_teacher", teacher_shapes, num_classes)
    return Setup(student, teacher, num_classes, labels, epochs=epochs)


def make_task(data: Splits | int = 10) -> Task:
    """The classification of a data set, or of N classes without images."""
    if isinstance(data, int):
        none = ArrayImages(torch.zeros(0, 8, 8, 3, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
        data = Splits(none, None, None, tuple(f"class {n}" for n in range(data)), (0.5,) * 3, (0.25,) * 3, View(8))
    task: Task = load("distillctl.builtin.classification_task:Classification", "classification")(data)
    return task


def make_batch(setup: Setup, size: int, seed: int = 0) -> Batch:
    """`size` different images of the training split (with repeats if it has fewer), their labels as in `setup.labels`."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(len(setup.labels), generator=generator).repeat(-(-size // len(setup.labels)))[:size]
    return Batch(torch.randn(size, 3, 8, 8, generator=generator), setup.labels[index], index)


def make_features(side: Side | None, size: int, seed: int = 0, scale: float = 1.0) -> dict[str, Tensor]:
    """Random float32 leaves (size, *shape) for every feature of a side, logits with a spread of 3; empty without a side.

    `last` and `final` are the same tensor as the last stage where they are there.
    """
    if side is None:
        return {}
    generator = torch.Generator().manual_seed(seed)
    features = {
        name: torch.randn(size, *shape, generator=generator) * (3 * scale if name == "logits" else scale)
        for name, shape in side.shapes.items()
    }
    deepest = features.get(side.stages[-1]) if side.stages else features.get("last")
    for name in ("last", "final"):
        if name in features and deepest is not None and features[name].shape == deepest.shape:
            features[name] = deepest
    return features


def make_progress(epoch: float = 1.0, epochs: int = 20) -> Progress:
    """The start of an epoch, counted from 1."""
    return Progress(torch.tensor(float(epoch)), torch.tensor((epoch - 1) / epochs))


def _channels_last(value: Tensor) -> Tensor:
    return (
        value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value.t().contiguous().t() if value.ndim == 2 else value
    )


def _transposed(value: Tensor) -> Tensor:
    return value.transpose(0, -1).contiguous().transpose(0, -1)


def _sliced(value: Tensor) -> Tensor:
    return torch.stack([value, torch.full_like(value, 7.0)], dim=-1).reshape(*value.shape[:-1], -1)[..., ::2]


LAYOUTS: Mapping[str, Callable[[Tensor], Tensor]] = {"channels_last": _channels_last, "transposed": _transposed, "sliced": _sliced}
"""The same values in another memory layout."""


def _every_other_is_zero(value: Tensor, dim: int) -> Tensor:
    return value.index_fill(dim, torch.arange(0, value.shape[dim], 2), 0.0)


DEGENERATE: Mapping[str, Callable[[Tensor], Tensor]] = {
    "zeros": torch.zeros_like,
    "zero_rows": lambda value: _every_other_is_zero(value, 0),
    "dead_channels": lambda value: _every_other_is_zero(value, 1),
    "constant": lambda value: torch.full_like(value, 2.5),
    "equal_rows": lambda value: value[:1].expand_as(value).clone(),
}
"""Values that occur in real runs and break careless formulas."""
