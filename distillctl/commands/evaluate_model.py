"""Evaluates a network without a run: a model by its name with weights from anywhere, on the data of a profile or of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from distillctl.build.data import build_task, inspected_task, task_class, teacher_run
from distillctl.build.device import pick_device
from distillctl.build.models import build_named, build_teacher
from distillctl.build.teachers import one_network
from distillctl.commands.evaluate import (
    Part,
    Report,
    check_against,
    check_images,
    check_keys,
    figures_of,
    images_of,
    teacher_of_run,
    with_data_found,
)
from distillctl.data.workers import worker_deaths
from distillctl.engine.memory import keep_freed_memory
from distillctl.errors import ProfileError
from distillctl.models.features import evaluating
from distillctl.models.forward_errors import explained_forward
from distillctl.plugin.registry import Registry
from distillctl.profile.evaluated import load_evaluated
from distillctl.rundir.directory import ROOT, RunDirectory

_NO_TEACHER = "add a [teacher] to the profile, or name a run"


@worker_deaths()
def evaluate_model(
    name: str,
    data: Path,
    registry: Registry,
    *,
    checkpoint: Path | None = None,
    weights: str = "",
    split: str = "",
    tta: str = "",
    device: str = "auto",
    root: Path = ROOT,
    accept_change: bool = False,
    against_teacher: bool = False,
    overrides: Sequence[str] = (),
) -> Report:
    """Evaluates a network that no run has.

    Args:
        name: of the model.
        data: a profile, of which what is said of data and evaluation counts, or a run directory.
        registry: where the names are found.
        checkpoint: a file of its weights, in any layout that a teacher's may have.
        weights: instead, the name of weights that the model knows.
        split: `train`, `val` or `test`; empty for the test split, or where there is none the validation split.
        tta: one of `Task.views`, `auto` (what the profile says, or what suits the data), or empty for none.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        root: where the run of a teacher's profile lies.
        accept_change: with the data of a run, evaluate although classes or images are not those with which it was trained.
        against_teacher: compare with the teacher of the profile or the run, too.
        overrides: `KEY=VALUE` of the tables `dataset`, `evaluate` and `model`, or of `train.workers`. `model` takes what [teacher] does:
            options of the model, `key`, `mean`, `std` and `image_size`.

    Raises:
        DistillError: something is not there, or does not fit.
    """
    chosen = pick_device(device)
    keep_freed_memory(chosen)
    check_keys(overrides, "dataset", "evaluate", "model")
    run = RunDirectory.open(data) if data.is_dir() else None
    if run is not None:
        run.check_resolved()
    elif accept_change:
        raise ProfileError("a profile knows no earlier images", where="--accept-change", hint="it goes with the data of a run")
    profile, choice = load_evaluated(
        data, name, registry=registry, checkpoint=checkpoint, weights=weights, with_teacher=against_teacher, overrides=overrides
    )
    compares = task_class(profile, registry).compares
    if run is None and (compares or against_teacher) and not profile.teachers:
        why = "images without labels are judged by a teacher's answers" if compares else "there is no teacher to compare with"
        raise ProfileError(f"{why}, and `{data}` has no [teacher]", where="--data" if compares else "--against-teacher", hint=_NO_TEACHER)
    if run is None:
        profile, task, told = inspected_task(profile, registry, root=root)
    else:
        profile, told = with_data_found(profile, run), ()
        task = build_task(profile, registry)
    split, images = images_of(task, split, f"`{profile.dataset.spec.name}` of `{data}`", ("train", "val", "test"))
    if against_teacher:
        check_against(task, profile)
    if run is not None and not accept_change:
        check_images(run, profile, task, registry, split)
    found = build_named(choice, task, "model")
    model = found.model.to(chosen)
    noise = torch.zeros(2, task.data.channels, *task.data.view.shape, device=chosen)
    with torch.no_grad(), evaluating(model), explained_forward(noise.shape[1:], ("the model ", found.spec, model)):
        task.check_output(task.sample(model, noise), found.spec.name)
    teacher = None
    if compares or against_teacher:
        of_data = [text for text in overrides if not text.lstrip().startswith("model.")]
        if run is None:
            teacher = one_network([build_teacher(one, registry, task, teacher_run(one, registry, root)) for one in profile.by_teacher])
            teacher.model.to(chosen)
        else:
            teacher = teacher_of_run(run, registry, task, chosen, of_data, accept_change=accept_change)
    part = Part(profile, task, images, chosen, found.spec, model, found.one_size, teacher, (*told, *found.notes), stranger=True)
    return Report(
        run=None,
        model=registry.models.shown_name(found.spec),
        data=data,
        checkpoint=weights or str(checkpoint),
        epoch=None,
        **figures_of(part, split, tta, overrides, against_teacher=against_teacher),
    )
