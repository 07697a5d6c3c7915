"""Profile + task + teacher → Experiment: where names have become objects, and everything meets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from distillctl.api.method import OUTPUT, Setup, Side
from distillctl.api.pooling import pools_in_order
from distillctl.api.specs import ModelSpec
from distillctl.api.task import Task
from distillctl.build.checks import (
    check_compiles,
    check_effects,
    check_passes,
    check_patience,
    check_quantise,
    check_reads,
    check_relabels,
    check_sampler,
    check_teacher_norm,
    head_owner,
)
from distillctl.build.cuda_graph import cuda_graph
from distillctl.build.data import evaluation_loader
from distillctl.build.depth import apply_depth
from distillctl.build.device import channels_last, missing_for_compile, placed
from distillctl.build.folded_norms import unfold
from distillctl.build.methods import build_methods, gives_head, wants_of
from distillctl.build.mixing import mixing_of
from distillctl.build.models import TeacherModel, build_student
from distillctl.build.parts import build_optimizer, build_parts
from distillctl.build.teachers import check_several, features_of, mean_side, names_of, one_network
from distillctl.data import Share, train_loader
from distillctl.distributed.process_group import ALONE, ProcessGroup
from distillctl.engine.batch_norm import synchronise
from distillctl.engine.experiment import Experiment, Settings
from distillctl.engine.objective import Objective, Weighted
from distillctl.engine.precision import Precision, precision_on
from distillctl.engine.teacher import LiveTeacher, LiveTeachers
from distillctl.errors import MachineError
from distillctl.models import heads
from distillctl.models.fake_quantise import quantise
from distillctl.models.features import HEAD, Tapped
from distillctl.profile.schema import Profile, seconds

# Steps below which compiling costs more than it gains on a GPU.
_COMPILE_REPAYS = 20_000


def assemble(
    profile: Profile,
    task: Task,
    teacher: TeacherModel | Sequence[TeacherModel] | None,
    device: torch.device,
    processes: ProcessGroup = ALONE,
) -> Experiment:
    """Builds everything for a run on one device, for this one of the processes that train together.

    teacher: or several.

    Raises:
        DistillError: something does not fit; the message says what.
    """
    train = profile.train
    check_reads(profile, task)
    check_relabels(profile, task)
    check_several(profile, task)
    check_patience(profile, task)
    check_sampler(profile, task)
    precision = precision_on(device, train.precision)
    last, last_beside = channels_last(device, precision, task.data.view.size)
    teachers = () if teacher is None else (teacher,) if isinstance(teacher, TeacherModel) else tuple(teacher)
    names, networks = names_of(one.shown for one in teachers), []
    for number, one in enumerate(teachers):
        frozen = placed(one.model, device, last).eval().requires_grad_(False)
        networks.append(Tapped(frozen, one.spec, features_of(profile, number, len(teachers))))
    model, notes = build_student(profile, task)
    model = placed(model, device, last)
    if profile.student.starts_from_weights:
        notes += unfold(model, task, device, profile.seed)
    student, methods, head = _student_with_methods(profile, task, model, networks, teachers, device)
    for number, one in enumerate(teachers):
        check_teacher_norm([entry for entry in methods if number in entry.teachers], one.model, one.shown)
    if train.quantize is not None:
        check_quantise(profile, processes)
        quantise(model)
    still, scales = apply_depth(profile, model, _shape(task), head_replaced=head is not None)
    objective = Objective(task, student, methods, task_weight=profile.task_weight, teacher=networks or None, frozen=still, lr_scales=scales)
    placed(objective, device, last_beside)
    if train.deterministic:
        pools_in_order(objective)
    if train.sync_batchnorm and processes.count > 1:
        for module in (objective, *networks):
            synchronise(module, device)
    loader = train_loader(
        task.data,
        batch_size=train.batch_size,
        seed=profile.seed,
        device=device,
        workers=train.workers,
        channels_last=last,
        share=Share(processes.rank, processes.count, train.accumulate),
        balanced=train.sampler == "balanced",
    )
    draws = task.draws or task.data.view.largest is not None  # shapes depend on the images
    compiled, said = _compiled(profile, device, train.epochs * loader.steps, methods, draws=draws)
    graph = cuda_graph(profile, device, precision, processes, draws=draws)
    return Experiment(
        task=task,
        teacher=_live(task, networks, teachers, device, precision),
        objectives=(objective,),
        loader=loader,
        evaluation=lambda images: evaluation_loader(profile, task, images, device, processes=processes),
        build_optimizer=partial(build_optimizer, profile.optimizer),
        parts=build_parts(profile, methods),
        settings=_settings(profile, task, device, compiled=compiled, cuda_graph=graph),
        device=device,
        digest=profile.digest,
        head=head,
        notes=(
            *([f'`train.precision = "auto"` is {precision} here'] if train.precision == "auto" else []),
            *said,
            *notes,
            *(f"{name}: {note}" if len(teachers) > 1 else note for name, one in zip(names, teachers, strict=True) for note in one.notes),
            *(note for entry in methods for note in entry.method.notes),
        ),
        teacher_called=tuple(one.called for one in teachers),
        processes=processes,
    )


def _live(
    task: Task, networks: Sequence[Tapped], teachers: Sequence[TeacherModel], device: torch.device, precision: Precision
) -> LiveTeacher | LiveTeachers | None:
    live = [LiveTeacher(task, network, device=device, precision=precision) for network in networks]
    if len(live) < 2:
        return live[0] if live else None
    whole = one_network(teachers)
    return LiveTeachers(live, Tapped(whole.model.eval(), whole.spec, ()), names_of(one.shown for one in teachers))


def _student_with_methods(
    profile: Profile, task: Task, model: nn.Module, networks: Sequence[Tapped], teachers: Sequence[TeacherModel], device: torch.device
) -> tuple[Tapped, list[Weighted], Mapping[str, Any] | None]:
    """The tapped student, the methods that are built for it, and the description of the head that one of them gave it."""
    spec = profile.student.spec
    wanted = tuple(name for choice in profile.methods if choice.table.weight > 0 for name in wants_of(choice).student)
    student = Tapped(model, spec, [name for name in wanted if not name.startswith(HEAD)])
    side = _side(student, task, spec.name)
    theirs = [_side(network, task, one.shown) for network, one in zip(networks, teachers, strict=True)]
    several = dict(zip(names_of(one.shown for one in teachers), theirs, strict=True)) if len(theirs) > 1 else {}
    setup = Setup(
        student=side,
        teacher=mean_side(several, one_network(teachers)) if several else theirs[0] if theirs else None,
        num_classes=side.shapes[OUTPUT][0] if OUTPUT in side.shapes else task.outputs,
        labels=task.data.train.labels,
        epochs=profile.train.epochs,
        unequal=task.data.view.largest is not None,
    )
    # A head first: what the classifier received, and what the head's layers give, are captured at new places then, and all other
    # methods are built for the student as it is.
    owner = head_owner(build_methods(profile, setup, gives_head, teachers=several), spec)
    head = None
    if owner is not None or any(name.startswith(HEAD) for name in wanted):
        student.close()
        head = None if owner is None else _install_head(owner, model, spec, device)
        student = Tapped(model, spec, wanted)
        setup = replace(setup, student=_side(student, task, spec.name))
    methods = build_methods(profile, setup, built=owner, teachers=several)
    check_effects(profile.task_weight, methods, labelled=not task.compares)
    check_passes(methods, owner, model, spec.name, _shape(task), draws=task.draws)
    return student, methods, head


def _shape(task: Task) -> tuple[int, int, int]:
    return task.data.channels, *task.data.view.shape


def _side(tapped: Tapped, task: Task, name: str) -> Side:
    return tapped.side(tapped.probe(_shape(task), task), name)


def _install_head(owner: Weighted, model: nn.Module, spec: ModelSpec, device: torch.device) -> Mapping[str, Any]:
    head = owner.method.head()
    assert head is not None
    head.layers.to(device)
    return heads.install(model, spec, head)


def _settings(profile: Profile, task: Task, device: torch.device, *, compiled: bool, cuda_graph: Literal["auto", "off", "on"]) -> Settings:
    train = profile.train
    return Settings(
        seed=profile.seed,
        epochs=train.epochs,
        precision=precision_on(device, train.precision),
        compiled=compiled,
        cuda_graph=cuda_graph,
        clip_grad_norm=train.clip_grad_norm,
        ema=train.ema,
        ema_ramp=train.ema_ramp,
        keep_every=train.keep_every,
        evaluate_every=profile.evaluate.every,
        save_every=seconds(train.save_every),
        deterministic=train.deterministic,
        mixing=mixing_of(train, task),
        patience=train.patience,
    )


def _compiled(
    profile: Profile, device: torch.device, steps: int, methods: list[Weighted], *, draws: bool = False
) -> tuple[bool, list[str]]:
    """Whether to compile, and what to say of it. A pure function of the profile and the machine, so that a resumed run does the same.

    Raises:
        ProfileError, MachineError: the profile says so, but it cannot be done.
    """
    missing = missing_for_compile(device)
    if profile.train.compile == "auto":
        able = not draws and all(m.method.compiles for m in methods) and not profile.optimizer.spec.separate_gradients
        wanted = able and device.type == "cuda" and steps >= _COMPILE_REPAYS
        note = f"the step is not compiled, which would make this long run faster: {missing}"
        return wanted and not missing, [note] if wanted and missing else []
    check_compiles(profile, methods, draws=draws)
    if profile.train.compile == "on" and missing:
        raise MachineError(f'`train.compile = "on"`, but {missing}', hint='use `compile = "auto"`, or install what is missing')
    return profile.train.compile == "on", []


def sides(experiment: Experiment) -> list[tuple[str, Side]]:
    """Student and teacher with the shapes of their taps, for display."""
    result = [("student", _side(experiment.student, experiment.task, experiment.student.spec.name))]
    result += [("teacher", _side(network, experiment.task, network.spec.name)) for network in experiment.networks]
    return result
