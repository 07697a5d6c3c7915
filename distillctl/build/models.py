"""The networks of a profile, with fresh weights or those that it names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distillctl.api.data import Splits
from distillctl.api.options import Options
from distillctl.api.specs import ModelSpec
from distillctl.api.task import Task
from distillctl.data.hashing import STUDENT, mix
from distillctl.errors import DataError, PluginError, ProfileError, RunError
from distillctl.models import deploy, heads
from distillctl.models.fake_quantise import quantise
from distillctl.models.teacher_input import adapt_input
from distillctl.plugin.registry import Registry, load
from distillctl.profile.schema import Profile, TeacherChoice, TeacherTable
from distillctl.profile.teacher import has_fixed_size
from distillctl.text import one_line
from distillctl.weights import state_dict
from distillctl.weights.contents import Side


@dataclass(frozen=True)
class TeacherModel:
    """A teacher with its weights.

    source: the file that the weights come from; None for weights by name.
    notes: what had to be changed to load them, and what they say otherwise than the data.
    classes: what its logits stand for, where its run says it.
    one_size: whether it sees all images at one size, whatever that of the view.
    """

    spec: ModelSpec
    model: nn.Module
    shown: str
    source: Path | None
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    one_size: bool = False

    @property
    def called(self) -> str:
        """Name and file, for messages."""
        return f"`{self.shown}`" if self.source is None else f"`{self.shown}` from `{self.source}`"


@contextmanager
def _weights_of(file: Path | None) -> Iterator[None]:
    """Errors within say which file it is."""
    try:
        yield
    except DataError as error:
        raise DataError([p if p.where or file is None else replace(p, where=str(file)) for p in error.problems]) from error


def build_model(task: Task, spec: ModelSpec, options: Options) -> nn.Module:
    """A model with fresh weights, drawn from torch's global generator."""
    return _built(spec, lambda builder: task.build(builder, spec.name, task.outputs, options))


def build_classifier(spec: ModelSpec, options: Options, classes: int) -> nn.Module:
    """As `build_model`, without data: a classifier of so many classes."""
    return _built(spec, lambda builder: builder(spec.name, classes, options))


def _built(spec: ModelSpec, build: Callable[[Any], object]) -> nn.Module:
    try:
        model = build(load(spec.implementation, spec.name))
    except (ValueError, AssertionError, RuntimeError) as error:  # options that do not go together
        shown = f"the model `{spec.name}` cannot be built: {one_line(error, 200)}"
        raise RunError(shown, hint=f"`distillctl show {spec.qualified}` lists its options") from error
    if not isinstance(model, nn.Module):
        raise PluginError(f"the builder of the model `{spec.name}` returned {type(model).__name__}, not a module")
    return model


def _pretrained(spec: ModelSpec, weights: str, options: Options) -> dict[str, Tensor]:
    """The state dict of pretrained weights by name."""
    loader = load(spec.weights_loader, spec.name)
    wants_options = len(signature(loader).parameters) > 2
    found: dict[str, Tensor] = loader(spec.name, weights, options) if wants_options else loader(spec.name, weights)
    return found


def build_student(profile: Profile, task: Task, *, initial: bool = True) -> tuple[nn.Module, list[str]]:
    """The student with its initial weights, and notes on what was left out of a pretrained file."""
    choice = profile.student
    torch.manual_seed(mix(profile.seed, STUDENT))
    model = build_model(task, choice.spec, choice.options)
    notes: list[str] = []
    state = None
    if initial and choice.table.weights:
        state = _pretrained(choice.spec, choice.table.weights, choice.options)
    elif initial and choice.table.checkpoint is not None:
        state, notes = state_dict.find_weights(choice.table.checkpoint, choice.table.key or "")
    elif initial and choice.part_file is not None:
        part, notes = state_dict.find_weights(choice.part_file)
        with _weights_of(choice.part_file):
            found = load(choice.spec.weights_of_part, choice.spec.name)(choice.spec.name, part, choice.options)
        state = {**model.state_dict(), **found}
    if state is not None:
        with _weights_of(choice.table.checkpoint):
            notes += state_dict.load_into(
                model,
                state,
                what=f"student `{choice.spec.name}`",
                classifier=choice.spec.classifier,
                allow_new_classifier=True,
                replaceable=() if choice.table.freeze else choice.spec.replaceable,  # what is left as it is would stay untrained
            )
        notes += _made_for(choice.spec, choice.table.weights, task.data)
    return model, notes


def _made_for(spec: ModelSpec, weights: str, data: Splits) -> list[str]:
    """A note on pretrained weights of a student that were made to see something else than it will."""
    seen = spec.weights_input.get(weights)
    if seen is None or (tuple(seen.mean), tuple(seen.std)) == (tuple(data.mean), tuple(data.std)):
        return []
    made, sees = (
        " and ".join(f"{name} [{', '.join(f'{value:.3g}' for value in values)}]" for name, values in (("mean", mean), ("std", std)))
        for mean, std in ((seen.mean, seen.std), (data.mean, data.std))
    )
    hint = "`dataset.mean` and `dataset.std`, where the data set has them, make it the same"
    return [f"the weights `{weights}` of the student were made with {made}, and it sees {sees}: {hint}"]


def build_deployed(profile: Profile, task: Task, head: Mapping[str, Any] | None) -> nn.Module:
    """The student with fresh weights, as it is evaluated and deployed: with the head that a method gave it, rounded to 8 bits if it was."""
    model, _ = build_student(profile, task, initial=False)
    if head is not None:
        heads.rebuild(model, profile.student.spec, head)
    if profile.train.quantize is not None:
        quantise(model)
    return model


def build_teacher(profile: Profile, registry: Registry, task: Task, run: Path | None = None) -> TeacherModel:
    """The teacher with its weights.

    Args:
        profile: has a [teacher].
        registry: where a deployed model's name is found.
        task: knows what a teacher has to answer.
        run: the run directory that stands for `teacher.profile`.

    Raises:
        DistillError: its weights do not fit it, or it answers other questions than those of the task.
    """
    choice = profile.teacher
    assert choice is not None
    folder = run or choice.table.run
    if folder is not None:
        model, info = deploy.read_student(folder, registry)
        found = registry.models.get(info["qualified"]).ending_after(info["options"].get("stages"))
        notes = task.check_teacher(info["num_classes"], info["classes"], str(folder))
        size = info["options"].get("image_size") if has_fixed_size(found) else None
        notes += _adapted(model, task.data, choice.table, str(folder), info["input"], size, key=choice.key)
        one_size = has_fixed_size(found) or choice.table.image_size is not None
        return TeacherModel(found, model, info["model"], folder / "student.safetensors", notes, tuple(info["classes"]), one_size)
    return build_named(choice, task)


def build_named(choice: TeacherChoice, task: Task, called: Side = "teacher") -> TeacherModel:
    """A network whose weights are named by `checkpoint` or `weights`, which sees what it was trained with.

    called: its table in the profile, and what it is in messages.

    Raises:
        DistillError: its weights do not fit it.
    """
    spec, options = choice.spec, choice.options
    assert spec is not None
    assert options is not None
    if spec.own_file:
        file = choice.table.checkpoint
        assert file is not None
        model = _built(spec, lambda builder: task.build(partial(builder, file=file), spec.name, task.outputs, options))
        notes = list(task.adopt(model))
    else:
        model = build_model(task, spec, options)
        state, notes = teacher_state(choice, called)
        with _weights_of(choice.table.checkpoint):
            notes += state_dict.load_into(model, state, what=f"{called} `{spec.name}`", classifier=spec.classifier)
    seen = spec.weights_input.get(choice.table.weights)
    told = {} if seen is None else {"mean": list(seen.mean), "std": list(seen.std), "size": seen.size}
    notes += _adapted(model, task.data, choice.table, choice.table.weights, told, called=called, key=choice.key)
    one_size = has_fixed_size(spec) or choice.table.image_size is not None
    return TeacherModel(spec, model, spec.name, choice.table.checkpoint, tuple(notes), one_size=one_size)


def teacher_state(choice: TeacherChoice, called: Side = "teacher") -> tuple[dict[str, Tensor], list[str]]:
    """The weights that are named by `checkpoint` or `weights`, and notes on where they were. called: whose they are, in messages.

    Raises:
        DataError: they are not there.
    """
    if choice.table.checkpoint is not None:
        return state_dict.find_weights(choice.table.checkpoint, choice.table.key or "", called)
    assert choice.spec is not None
    assert choice.options is not None
    return _pretrained(choice.spec, choice.table.weights, choice.options), []


def _adapted(
    model: nn.Module,
    data: Splits,
    table: TeacherTable,
    source: str,
    told: Mapping[str, Any],
    size: int | None = None,
    called: str = "teacher",
    key: str = "teacher",
) -> tuple[str, ...]:
    """Makes a network see what it was trained with: what its table states, or else what its weights or its run tell.

    source: whose `told` it is. size: the only one at which the model works, unless the table states another. called: what the network is.
    key: its table.

    Raises:
        ProfileError: there are not as many numbers as the images have channels, or views of unequal sizes are to be resized.
    """
    for name in ("mean", "std"):
        if (stated := getattr(table, name)) is not None and len(stated) != data.channels:
            message = f"`{key}.{name}` must have {data.channels} numbers, one for each channel, not {len(stated)}"
            hint = f"{source} has them" if stated == told.get(name) else ""
            raise ProfileError(message, where=f"[{key}]", hint=hint)
    own = _numbers(told.get("mean"), data.channels, -math.inf), _numbers(told.get("std"), data.channels, 0.0)
    mean, std, size = table.mean or own[0], table.std or own[1], table.image_size or size
    if size is not None and data.view.largest is not None:
        raise ProfileError(f"`{key}.image_size` resizes square views, and those of this data set differ in size", where=f"[{key}]")
    notes = adapt_input(model, data, mean, std, size, source if (mean, std) == own else "", called)
    trained = told.get("size")
    if size is None and data.view.largest is None and isinstance(trained, int) and trained not in (0, data.view.size):
        # Not done by itself: a convolutional net takes any size, and resized small images would cost many times as much.
        notes += (f"{source} was made for {trained} pixels and sees {data.view.size}: `{key}.image_size = {trained}` resizes for it",)
    return notes


def _numbers(value: Any, count: int, above: float) -> list[float] | None:
    """What a `model.json` says of a mean or deviation, if it is that."""
    fits = isinstance(value, list) and len(value) == count and all(isinstance(v, int | float) and above < v < math.inf for v in value)
    return [float(v) for v in value] if fits else None
