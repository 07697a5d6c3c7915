"""What a temperature makes of the answers of a teacher and its student, on chosen images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distillctl.analysis.softened import Shown, Temperatures, gradient, softened
from distillctl.api.data import Images
from distillctl.api.method import Batch
from distillctl.api.task import Task
from distillctl.build.data import build_task, evaluation_loader, inspected_task, teacher_run
from distillctl.build.device import pick_device
from distillctl.build.models import build_teacher
from distillctl.build.teachers import one_network
from distillctl.commands.evaluate import images_of, teacher_of_run, with_data_found
from distillctl.commands.pictures import encoded, pixels
from distillctl.data.deployed_view import Preprocessing, description
from distillctl.data.workers import worker_deaths
from distillctl.engine.precision import ieee
from distillctl.errors import DataError, Problem, ProfileError
from distillctl.models import deploy
from distillctl.models.features import evaluating
from distillctl.plugin.registry import Registry
from distillctl.profile.problems import nearest
from distillctl.profile.reading import from_resolved, load
from distillctl.profile.schema import Profile
from distillctl.rundir.directory import ROOT, RunDirectory
from distillctl.text import counted

TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0, 100.0)
MOST = 2000
"""Images over which means are taken; of more, that many, spread evenly."""
SHOWN = 4
"""Images whose answers are shown one by one."""


@worker_deaths()
def softmax(
    what: str | Path,
    *,
    temperatures: Sequence[float] = TEMPERATURES,
    image: str | Path | None = None,
    label: str = "",
    split: str = "",
    device: str = "auto",
    allow_code: bool = False,
    root: str | Path = ROOT,
) -> Temperatures:
    """Softens the answers of a run's student and teacher, or of the teacher that a profile names: what `distillctl softmax` does.

    Several teachers answer as one, by the mean of their probabilities.

    Args:
        what: a run directory, or a profile.
        temperatures: each above 0.
        image: a file; without it images of the data.
        label: of these those of one class, by its name.
        split: `train`, `val` or `test`; empty for the test split, or where there is none the validation split.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        allow_code: run the file of a model or data set of one's own.
        root: where the run of a teacher's profile lies.

    Raises:
        DistillError: a model, the data, the class or the image is not there, or the answers are not classes.
    """
    if not temperatures or not all(math.isfinite(value) and value > 0 for value in temperatures):
        raise ProfileError("a temperature is a number above 0", where="--temperatures", hint="such as `--temperatures 1,2,4,8`")
    if image is not None and (label or split):
        option = "--class" if label else "--split"
        raise ProfileError(f"`{option}` chooses images of the data, and `--image` names one", where=option, hint="leave one of both out")
    registry = Registry.load()
    if allow_code:
        registry.allow_code()
    chosen, path = pick_device(device), Path(what)
    profile, task, models, names = _of_run(path, registry, chosen) if path.is_dir() else _of_profile(path, registry, Path(root))
    if "logits" not in task.gives or task.answers != "classes":
        raise ProfileError(f"the answers to images of `{profile.dataset.spec.name}` are not classes", where="softmax")
    if image is not None:
        answers, labels, shown = _of_file(Path(image), task, models, chosen)
        images, labelled = str(image), False
    else:
        split, found = images_of(task, split, f"`{profile.dataset.spec.name}` of `{what}`", ("train", "val", "test"))
        places = _places(found, task, label)
        answers, labels = _of_data(profile, task, found, places, models, chosen)
        images, labelled = f"{counted(len(places), 'image')} of {split}{f' of class {label}' if label else ''}", len(found.labels) > 0
        shown = _shown(task, found, places, split)
    classes = _names(task, next(iter(answers.values())).shape[1])
    if not labelled:
        labels = next(iter(answers.values())).argmax(1)
    against, gradients = "", []
    if "teacher" in answers:
        against = "the student's logits" if "student" in answers else "the logits of a student that gives every class the same probability"
        student = answers.get("student", np.zeros_like(answers["teacher"]))
        gradients = [gradient(answers["teacher"], student, labels, value) for value in temperatures]
    lines = {who: [softened(logits, labels, value) for value in temperatures] for who, logits in answers.items()}
    return Temperatures(
        str(what), images, labelled, classes, tuple(temperatures), answers, names, against, lines, gradients, shown
    )  # fmt: skip


_Found = tuple[Profile, Task, dict[str, nn.Module], dict[str, str]]


def _of_run(path: Path, registry: Registry, device: torch.device) -> _Found:
    run = RunDirectory.open(path)
    profile = with_data_found(from_resolved(run.check_resolved(), registry, student_only=True, with_teacher=True), run)
    task = build_task(profile, registry)
    student, info = deploy.read_student(path, registry)
    models, names = {"student": student}, {"student": str(info["model"])}
    if profile.teacher is not None:
        teacher = teacher_of_run(run, registry, task, device)
        models, names = {"teacher": teacher.model, **models}, {"teacher": teacher.shown, **names}
    return profile, task, models, names


def _of_profile(path: Path, registry: Registry, root: Path) -> _Found:
    profile = load(path, registry=registry)
    if profile.teacher is None:
        hint = "name a profile with a [teacher], or a run directory"
        raise ProfileError(f"`{path}` has no [teacher], so nothing answers yet", where="softmax", hint=hint)
    folders = [teacher_run(one, registry, root) for one in profile.by_teacher]
    profile, task, _ = inspected_task(profile, registry, root=root)
    teachers = [build_teacher(one, registry, task, folder) for one, folder in zip(profile.by_teacher, folders, strict=True)]
    teacher = one_network(teachers)
    return profile, task, {"teacher": teacher.model}, {"teacher": teacher.shown}


def _places(images: Images, task: Task, label: str) -> list[int]:
    """The images over which means are taken."""
    places = list(range(len(images)))
    if label:
        places = (images.labels == _number(task, label)).nonzero()[:, 0].tolist()
        if not places:
            raise DataError(f"there is no image of class `{label}`", where="--class", hint="`--split` names another split")
    return [places[i * len(places) // MOST] for i in range(MOST)] if len(places) > MOST else places


def _number(task: Task, label: str) -> int:
    classes = list(task.data.classes)
    if label in classes:
        return classes.index(label)
    raise ProfileError(f"no class is called `{label}`", where="--class", hint=nearest(label, classes) or "`distillctl eval` lists them")


def _names(task: Task, count: int) -> Sequence[str]:
    names = [str(name) for name in task.data.classes]
    return names if len(names) == count else [str(i) for i in range(count)]


def _of_data(
    profile: Profile, task: Task, images: Images, places: Sequence[int], models: Mapping[str, nn.Module], device: torch.device
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64]]:
    with closing(evaluation_loader(profile, task, images.subset(torch.tensor(places)), device)) as loader:
        batches = [(batch, _ask(task, models, batch, device)) for batch in loader]
    answers = {who: np.concatenate([found[who] for _, found in batches]) for who in models}
    return answers, np.concatenate([batch.labels.cpu().numpy() for batch, _ in batches])


def _of_file(
    path: Path, task: Task, models: Mapping[str, nn.Module], device: torch.device
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64], list[Shown]]:
    view = Preprocessing(description(task.data))
    seen = view.pixels(path)
    empty = torch.zeros(0, dtype=torch.int64)
    batch = Batch(view.normalise(seen[None]).to(device), empty, empty)
    return _ask(task, models, batch, device), empty.numpy(), [Shown(path.name, "", encoded(seen), 0)]


@torch.no_grad()
def _ask(task: Task, models: Mapping[str, nn.Module], batch: Batch, device: torch.device) -> dict[str, NDArray[np.float64]]:
    """The logits of each network.

    Raises:
        DataError: they are not finite.
    """
    found = {}
    for who, model in models.items():
        model.to(device)
        with evaluating(model), ieee():
            logits: Tensor = task.predict(model, batch)
        if not bool(logits.isfinite().all()):
            raise DataError([Problem(f"the logits of the {who} are not finite")])
        found[who] = logits.double().cpu().numpy()
    return found


def _shown(task: Task, images: Images, places: Sequence[int], split: str) -> list[Shown]:
    """Some of the images, spread evenly."""
    count = min(SHOWN, len(places))
    rows = [i * len(places) // count for i in range(count)]
    files = [encoded(one) for one in pixels(task, images, [places[row] for row in rows])]
    labels = [str(task.data.classes[int(images.labels[places[row]])]) if len(images.labels) else "" for row in rows]
    return [Shown(f"image {places[row]} of {split}", label, file, row) for row, label, file in zip(rows, labels, files, strict=True)]
