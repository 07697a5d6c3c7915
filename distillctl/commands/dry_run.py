"""Builds a whole run, takes two steps and says what it would be; writes nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from distillctl.api.data import Images, View
from distillctl.api.method import Batch
from distillctl.api.task import Task
from distillctl.build.advice import advice, average_advice
from distillctl.build.data import inspected_task
from distillctl.build.device import check_precision, pick_device, unused_gpu
from distillctl.build.experiment import assemble, sides
from distillctl.build.models import TeacherModel, build_model, build_teacher
from distillctl.commands.run_costs import method_costs
from distillctl.data import train_loader
from distillctl.data.workers import worker_deaths
from distillctl.engine.determinism import deterministic_algorithms, prepare
from distillctl.engine.experiment import Experiment, Part
from distillctl.engine.memory import keep_freed_memory, peak_memory
from distillctl.engine.meter import Reading
from distillctl.engine.precision import ieee
from distillctl.engine.step import Step
from distillctl.models.cost import macs, parameters
from distillctl.models.features import evaluating
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load_teacher_profile
from distillctl.profile.schema import Profile
from distillctl.rundir.directory import ROOT, place

_CALIBRATION, _CALIBRATION_BATCHES = 32, 4
"""Images in a batch from which a stand-in has its statistics, and how many such batches."""


@dataclass(frozen=True)
class SidePlan:
    """One network of the run.

    macs: multiply-accumulates of an image, forward; None where the network does not compute one image alone.
    taps: shape without the batch dimension of every captured feature.
    """

    role: str
    name: str
    parameters: int
    macs: int | None
    taps: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class PartPlan:
    """The main part of the run, or a phase of a method before it.

    seconds_per_step: of the second step.
    reading: the terms of two steps.
    """

    name: str
    epochs: int
    seconds_per_step: float
    reading: Reading


@dataclass(frozen=True)
class Plan:
    """What a run would be.

    methods: of all methods together, `parameters`, without the head that one of them may have given to the student, and where it could be
        counted `macs`, multiply-accumulates of their losses for an image, beside those of the networks.
    parts: in their order; the main part is the last.
    memory: bytes at the peak of two steps of each part; None where the system does not count them.
    evaluation_seconds: estimate for all evaluations of the run, by one batch of each split.
    teacher_seconds: estimate for the training of a teacher that is not there yet, with its evaluations.
    notes: what the user should know of it, and what of the profile will hardly be meant.
    """

    path: Path
    data: str
    sides: tuple[SidePlan, ...]
    methods: Mapping[str, int]
    steps_per_epoch: int
    parts: tuple[PartPlan, ...]
    memory: int | None
    evaluation_seconds: float = 0.0
    teacher_seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def step_seconds(self) -> float:
        """Estimate for all steps of the run."""
        return sum(part.seconds_per_step * self.steps_per_epoch * part.epochs for part in self.parts)

    @property
    def seconds(self) -> float:
        """Estimate for all of it: steps, evaluations, and the training of the teacher."""
        return self.step_seconds + self.evaluation_seconds + self.teacher_seconds


@worker_deaths()
def dry_run(profile: Profile, registry: Registry, *, out: Path | None = None, device: str = "auto", root: Path = ROOT) -> Plan:
    """Builds everything and runs two steps of every part.

    Raises:
        DistillError: something does not fit; the message says what.
    """
    prepare(profile.train.deterministic)
    chosen = pick_device(device)
    check_precision(profile, chosen)
    keep_freed_memory(chosen)
    path, _ = place(profile.name, profile.digest, root=root, out=out)
    profile, task, said = inspected_task(profile, registry, root=root)
    notes = [*filter(None, [unused_gpu(device, chosen)]), *said]
    untrained = [untrained_teacher(one, registry, root) for one in profile.by_teacher]
    trainers = {trainer.digest: trainer for trainer in untrained if trainer is not None}
    teachers = stand_in_teachers(profile, registry, task, root, notes, chosen)
    with closing(assemble(profile, task, teachers, chosen)) as experiment, deterministic_algorithms(experiment):
        tried = [_try_part(experiment, part) for part in experiment.parts]
        networks = tuple(
            SidePlan(role, side.name, parameters(side.model), _macs(experiment, side.model), dict(side.shapes))
            for role, side in sides(experiment)
        )
        _, step, batch = tried[-1]
        evaluations = _evaluation_seconds(experiment)
        methods = method_costs(step, batch)  # the last of all, since it changes statistics
        plan = Plan(
            path=path,
            data=task.data.overview,
            sides=networks,
            methods=methods,
            steps_per_epoch=experiment.loader.steps,
            parts=tuple(part for part, _, _ in tried),
            memory=peak_memory(chosen),
            evaluation_seconds=evaluations,
            notes=(*notes, *advice(profile, 1), *average_advice(profile, experiment.loader.steps), *experiment.notes),
        )
    del experiment, teachers, tried, step, batch  # their memory
    times = [dry_run(trainer, registry, device=device, root=root).seconds for trainer in trainers.values()]
    return replace(plan, teacher_seconds=sum(times)) if times else plan


def _macs(experiment: Experiment, model: nn.Module) -> int | None:
    data = experiment.task.data
    try:
        return macs(model, (data.channels, *data.view.shape))
    except Exception:  # noqa: BLE001 - a figure that is left out; whatever a model has against one image of zeros
        return None


def _try_part(experiment: Experiment, part: Part) -> tuple[PartPlan, Step, Batch | None]:
    """Two steps of a part; the step, and the last batch."""
    step = Step(experiment, part)
    seconds, batch = 0.0, None
    for number, batch in zip(range(2), experiment.loader.epoch(part.begin), strict=False):
        batch = _largest(batch, experiment.splits.view)
        started = time.perf_counter()
        step(batch, number)
        synchronize(experiment.device)
        seconds = time.perf_counter() - started
    return PartPlan(part.name, part.epochs, seconds, step.learner.meter.read()), step, batch


def _largest(batch: Batch, view: View) -> Batch:
    """A batch of views of unequal sizes, as large as one can be: what it takes in memory and time then is enough for any other."""
    if view.largest is None:
        return batch
    (height, width), (most_high, most_wide) = batch.images.shape[-2:], view.largest
    if height > width:
        most_high, most_wide = sorted(view.largest, reverse=True)
    return replace(batch, images=F.pad(batch.images, (0, max(0, most_wide - width), 0, max(0, most_high - height))))


def synchronize(device: torch.device) -> None:
    """Waits until a GPU has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _evaluation_seconds(experiment: Experiment) -> float:
    """For all evaluations of a run: of its epochs, of the last and the best student at the end, of the teachers at the beginning."""
    splits, epochs = experiment.splits, experiment.main.epochs
    often, last = splits.val or splits.test, splits.test or splits.val
    total = 0.0
    if often is not None and last is not None:
        times = math.ceil(epochs / experiment.settings.evaluate_every)
        total = times * _seconds_of(experiment, experiment.model, often) + 2 * _seconds_of(experiment, experiment.model, last)
    if experiment.network is not None:
        whole = _seconds_of(experiment, experiment.network.model, last or splits.train)
        total += whole * (2 if len(experiment.networks) > 1 else 1)  # several by themselves, and together
    return total


def _seconds_of(experiment: Experiment, model: nn.Module, images: Images) -> float:
    """For one evaluation on a split, by its second batch, or by the first where there is one."""
    loader, seconds, first = experiment.evaluation(images), 0.0, 0
    try:
        with evaluating(model), ieee(), torch.no_grad():
            started = time.perf_counter()
            for _, batch in zip(range(2), loader, strict=False):
                experiment.task.predict(model, batch)
                synchronize(experiment.device)
                now = time.perf_counter()
                seconds, started, first = now - started, now, first or batch.count
    finally:
        loader.close()
    return seconds * math.ceil(len(images) / max(first, 1))


def untrained_teacher(profile: Profile, registry: Registry, root: Path) -> Profile | None:
    """The profile that has yet to make the teacher; None if it has, or none does."""
    if profile.teacher is None or profile.teacher.table.profile is None:
        return None
    other = load_teacher_profile(profile, registry)
    _, run = place(other.name, other.digest, root=root)
    return None if run is not None and run.finished else other


def stand_in_teachers(
    profile: Profile, registry: Registry, task: Task, root: Path, notes: list[str], device: torch.device
) -> list[TeacherModel]:
    """The teachers; one that another profile has yet to train stands in with fresh weights, whose statistics are those of some images."""
    return [_stand_in(one, registry, task, root, notes, device) for one in profile.by_teacher]


def _stand_in(profile: Profile, registry: Registry, task: Task, root: Path, notes: list[str], device: torch.device) -> TeacherModel:
    assert profile.teacher is not None
    other = untrained_teacher(profile, registry, root)
    if other is None:
        by_profile = profile.teacher.table.profile is not None
        trained = load_teacher_profile(profile, registry) if by_profile else None
        run = None if trained is None else place(trained.name, trained.digest, root=root)[1]
        return build_teacher(profile, registry, task, None if run is None else run.path)
    which = f" (`{other.student.spec.name}`)" if "." in profile.teacher.key else ""
    notes.append(f"the teacher of {other.path.name}{which} is not trained yet: fresh weights stand in")
    spec = other.student.spec
    model = build_model(task, spec, other.student.options)
    _calibrate(model, task, device, profile.seed)
    return TeacherModel(spec, model, spec.name, None)


def _calibrate(model: nn.Module, task: Task, device: torch.device, seed: int) -> None:
    """Batch normalisation gets the statistics of some training images; with those of a fresh network its logits would be of any size."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    loader = train_loader(task.data, batch_size=_CALIBRATION, seed=seed, device=device, workers=0)
    model.to(device)
    try:
        with evaluating(model), torch.no_grad():
            for norm in norms:
                norm.reset_running_stats()
                norm.train()
                norm.momentum = None  # the mean over all batches
            for _, batch in zip(range(_CALIBRATION_BATCHES), loader.epoch(0), strict=False):
                if batch.count > 1:
                    model(batch.images)
    finally:
        loader.close()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
