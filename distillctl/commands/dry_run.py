"""Builds a whole run, takes two steps and says what it would be; writes nothing."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from distillctl.api.task import Task
from distillctl.build.data import inspected_task
from distillctl.build.device import check_precision, pick_device
from distillctl.build.experiment import assemble, sides
from distillctl.build.models import TeacherModel, build_model, build_teacher
from distillctl.data.workers import worker_deaths
from distillctl.engine.experiment import Experiment, Part
from distillctl.engine.memory import keep_freed_memory, peak_memory
from distillctl.engine.meter import Reading
from distillctl.engine.step import Step
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load_teacher_profile
from distillctl.profile.schema import Profile
from distillctl.rundir.directory import ROOT, place


@dataclass(frozen=True)
class SidePlan:
    """One network of the run.

    taps: shape without the batch dimension of every captured feature.
    """

    role: str
    name: str
    parameters: int
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

    method_parameters: of all methods, beside the student.
    parts: in their order; the main part is the last.
    memory: bytes at the peak of two steps of each part.
    notes: what the estimate leaves out.
    """

    path: Path
    data: str
    sides: tuple[SidePlan, ...]
    method_parameters: int
    steps_per_epoch: int
    parts: tuple[PartPlan, ...]
    memory: int
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Estimate for all steps of the run, without evaluations."""
        return sum(part.seconds_per_step * self.steps_per_epoch * part.epochs for part in self.parts)


@worker_deaths()
def dry_run(profile: Profile, registry: Registry, *, out: Path | None = None, device: str = "auto", root: Path = ROOT) -> Plan:
    """Builds everything and runs two steps of every part.

    Raises:
        DistillError: something does not fit; the message says what.
    """
    chosen = pick_device(device)
    check_precision(profile, chosen)
    keep_freed_memory(chosen)
    path, _ = place(profile.name, profile.digest, root=root, out=out)
    profile, task, said = inspected_task(profile, registry)
    notes = list(said)
    teacher = stand_in_teacher(profile, registry, task, root, notes)
    with closing(assemble(profile, task, teacher, chosen)) as experiment:
        parts = tuple(_try_part(experiment, part) for part in experiment.parts)
        networks = tuple(
            SidePlan(role, side.name, sum(p.numel() for p in side.model.parameters()), dict(side.shapes))
            for role, side in sides(experiment)
        )
        return Plan(
            path=path,
            data=task.data.overview,
            sides=networks,
            method_parameters=sum(p.numel() for p in experiment.objective.methods.parameters()),
            steps_per_epoch=experiment.loader.steps,
            parts=parts,
            memory=peak_memory(chosen),
            notes=tuple(notes),
        )


def _try_part(experiment: Experiment, part: Part) -> PartPlan:
    """Two steps of a part."""
    step = Step(experiment, part)
    seconds = 0.0
    for number, batch in zip(range(2), experiment.loader.epoch(part.begin), strict=False):
        started = time.perf_counter()
        step(batch, number)
        synchronize(experiment.device)
        seconds = time.perf_counter() - started
    return PartPlan(part.name, part.epochs, seconds, step.learner.meter.read())


def synchronize(device: torch.device) -> None:
    """Waits until a GPU has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def stand_in_teacher(profile: Profile, registry: Registry, task: Task, root: Path, notes: list[str]) -> TeacherModel | None:
    """The teacher; one that another profile has yet to train stands in with fresh weights."""
    if profile.teacher is None or profile.teacher.table.profile is None:
        return None if profile.teacher is None else build_teacher(profile, registry, task)
    other = load_teacher_profile(profile, registry)
    _, run = place(other.name, other.digest, root=root)
    if run is not None and run.finished:
        return build_teacher(profile, registry, task, run.path)
    notes.append(f"the teacher of {other.path.name} is not trained yet: fresh weights stand in, and its training is not in the time")
    spec = other.student.spec
    return TeacherModel(spec, build_model(task, spec, other.student.options), spec.name, None)
