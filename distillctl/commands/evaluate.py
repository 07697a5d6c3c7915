"""Evaluates a run from its directory alone, without the profile it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from distillctl.api.task import Evaluation, Task
from distillctl.build.data import build_task, evaluation_loader, tta_kind
from distillctl.build.device import channels_last, pick_device, placed
from distillctl.build.models import TeacherModel, build_deployed, build_teacher
from distillctl.commands.resume_check import changed, changed_images, refuse
from distillctl.data.workers import worker_deaths
from distillctl.engine.evaluate import Comparison, evaluate
from distillctl.engine.experiment import MAIN
from distillctl.engine.memory import keep_freed_memory
from distillctl.engine.precision import precision_on
from distillctl.errors import DataError, DistillError, Problem, ProfileError
from distillctl.files import sha256
from distillctl.models import deploy
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import from_resolved
from distillctl.profile.schema import Profile
from distillctl.rundir import digests
from distillctl.rundir.directory import ROOT, RunDirectory, runs_in
from distillctl.weights import read_file, state_dict


@dataclass(frozen=True)
class Report:
    """An evaluation of one checkpoint on one split.

    epoch: of the checkpoint; None for a file from elsewhere.
    tta: `flip`, `ten_crop`, or empty.
    figures: by name.
    plain: the figures without test-time augmentation, where there is some.
    classes: a line for each class: `name`, `correct`, `count`; empty where there are no classes.
    shown: name and text of every figure but the number of images; with test-time augmentation, the text without it behind.
    """

    run: Path
    checkpoint: str
    epoch: int | None
    split: str
    tta: str
    figures: Mapping[str, float]
    plain: Mapping[str, float] | None
    classes: Sequence[Mapping[str, Any]]
    shown: Sequence[tuple[str, str]]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "run": str(self.run),
            "checkpoint": self.checkpoint,
            "epoch": self.epoch,
            "split": self.split,
            "tta": self.tta,
            **self.figures,
            **({} if self.plain is None else {"plain": dict(self.plain)}),
            **({"classes": [dict(line) for line in self.classes]} if self.classes else {}),
        }


def newest_finished(root: Path = ROOT) -> RunDirectory:
    """The finished run that was written to last.

    Raises:
        DataError: there is none.
    """
    for run in runs_in(root):
        with suppress(DataError):  # a damaged run must not hide the others
            if run.finished:
                return run
    raise DataError(f"there is no finished run below `{root}`", hint="train one, or name a run directory")


_TEACHER_HINT = "put the teacher back as it was; `--accept-change` compares with the one that is there now"
_HINT = "put the images back as they were; `--accept-change` evaluates those that are there now"


@worker_deaths()
def evaluate_run(
    path: Path | None,
    registry: Registry,
    *,
    split: str = "",
    checkpoint: str = "best",
    tta: str = "",
    device: str = "auto",
    root: Path = ROOT,
    accept_change: bool = False,
    overrides: Sequence[str] = (),
) -> Report:
    """Evaluates a run.

    Args:
        path: the run directory; None for the newest finished run below `root`.
        registry: where the names of its profile are found.
        split: `val` or `test`; empty for the test split, or where there is none the validation split.
        checkpoint: `best`, `last`, or a file of weights.
        tta: `flip`, `ten_crop`, `auto` (what the profile says, or what suits the data), or empty for none.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        root: where runs lie.
        overrides: `KEY=VALUE` of the tables `dataset` and `evaluate`, such as `dataset.root=FOLDER`.
        accept_change: evaluate although the classes or the images of the split are not those with which the run was trained.

    Raises:
        DistillError: the run, the split or the checkpoint is not there, or the images changed.
    """
    run = _meant(path, checkpoint, root)
    chosen = pick_device(device)
    keep_freed_memory(chosen)
    if wrong := next((text for text in overrides if not text.startswith(("dataset.", "evaluate."))), None):
        raise ProfileError(f"`{wrong}` is not a key that an evaluation reads", where="--set", hint="allowed: keys of dataset and evaluate")
    profile = with_data_found(from_resolved(run.check_resolved(), registry, student_only=True, overrides=overrides), run)
    task = build_task(profile, registry)
    splits = task.data
    split = split or ("test" if splits.test is not None else "val")
    if split not in ("val", "test"):
        raise ProfileError(f"unknown split `{split}`", where="--split", hint="allowed: val, test")
    images = getattr(splits, split)
    if images is None:
        raise DataError(f"the data set `{profile.dataset.spec.name}` of `{run.path}` has no {split} split")
    if not accept_change:
        data = profile.dataset.spec
        deploy.check_own_file(registry, data, run.info().get("packages", {}).get(registry.datasets.plugin(data).package), run.path)
        refuse(run, changed_images(run, task, split), _HINT)
    model, epoch = _model(run, profile, task, checkpoint, registry)
    model = model.to(chosen)
    teacher = _teacher(run, registry, task, overrides, chosen, accept_change) if task.compares else None

    def evaluated(kind: str) -> Evaluation:
        with ExitStack() as stack:
            loader = stack.enter_context(closing(evaluation_loader(profile, task, images, chosen, tta=kind)))
            if teacher is None:
                return evaluate(task, model, loader)
            beside = task.data.labelled
            labelled = () if beside is None else stack.enter_context(closing(evaluation_loader(profile, task, beside, chosen)))
            return evaluate(task, model, loader, comparison=Comparison(profile.student.spec, teacher.model, teacher.spec, labelled))

    evaluation, plain = evaluated(tta), evaluated("") if tta else None
    names = {name: words for name, words in task.names.items() if name in evaluation.figures}
    beside = {} if plain is None else {name: f" ({task.show(name, plain.figures[name])} without)" for name in names}
    return Report(
        run=run.path,
        checkpoint=checkpoint,
        epoch=epoch,
        split=split,
        tta=tta_kind(profile, task, images, tta),
        figures=evaluation.figures,
        plain=None if plain is None else plain.figures,
        classes=task.breakdown(evaluation),
        shown=[(words, task.show(name, evaluation.figures[name]) + beside.get(name, "")) for name, words in names.items()],
    )


def _teacher(
    run: RunDirectory, registry: Registry, task: Task, overrides: Sequence[str], device: torch.device, accept_change: bool
) -> TeacherModel:
    """The teacher of a run, with which its student is compared.

    Raises:
        DataError: it is gone, or it is another one.
    """
    profile = from_resolved(run.check_resolved(), registry, student_only=True, with_teacher=True, overrides=overrides)
    told = run.info().get("teacher_run")
    folder = Path(told) if isinstance(told, str) else None
    if folder is not None and not folder.exists():
        folder = run.path.parent / folder.name  # all runs were moved together
    try:
        teacher = build_teacher(profile, registry, task, folder)
        if not accept_change and teacher.source is not None:
            refuse(run, changed(run, {"teacher_sha256": sha256(teacher.source)}), _TEACHER_HINT)
    except DistillError as error:
        why = f"the figures of `{run.path}` are told by its teacher, which cannot be asked"
        raise DataError([Problem(why), *error.problems]) from error
    last, _ = channels_last(device, precision_on(device, profile.train.precision), task.data.view.size)
    placed(teacher.model, device, last)  # as in training
    return teacher


def _meant(path: Path | None, checkpoint: str, root: Path) -> RunDirectory:
    """The run to evaluate: the one that is named, the one in which the checkpoint lies, or the newest finished one.

    Raises:
        DataError: there is none. ProfileError: a file from elsewhere does not say which run's model it is for.
    """
    if path is not None:
        return RunDirectory.open(path)
    if checkpoint in ("best", "last"):
        return newest_finished(root)
    for folder in Path(checkpoint).absolute().parents:
        if (folder / "run.json").is_file():
            return RunDirectory.open(folder)
    raise ProfileError(
        f"`{checkpoint}` does not say of which run's model it is", where="--checkpoint", hint="name the run: `distillctl eval RUN`"
    )


def with_data_found(profile: Profile, run: RunDirectory) -> Profile:
    """The profile with data that are not below this directory, but below the one where the run was begun."""
    began, options = run.info().get("directory"), profile.dataset.options
    places = {name: value for name in type(options).model_fields if isinstance(value := getattr(options, name), Path)}
    moved = {
        name: Path(began) / value
        for name, value in places.items()
        if isinstance(began, str) and not value.exists() and (Path(began) / value).exists()
    }
    return replace(profile, dataset=replace(profile.dataset, options=options.model_copy(update=moved))) if moved else profile


def _model(run: RunDirectory, profile: Profile, task: Task, checkpoint: str, registry: Registry) -> tuple[Any, int | None]:
    if checkpoint == "best" and (run.path / "student.safetensors").is_file():
        model, _ = deploy.read_student(run.path, registry)
        return model, run.info().get("best_epoch")
    spec = profile.student.spec
    deploy.check_own_file(registry, spec, run.info().get("packages", {}).get(registry.models.plugin(spec).package), run.path)
    model = build_deployed(profile, task, run.info().get("head"))
    if checkpoint in ("best", "last"):
        file = run.best if checkpoint == "best" else run.last
        if not file.is_file():
            raise DataError(f"`{run.path}` has no {checkpoint} checkpoint yet")
        # Somebody may have sent the run: its checkpoint is opened like any other file of weights.
        state_dict.load_into(model, read_file(digests.check(file)), what=f"the student of `{run.path}`")
        return model, _epoch(run, checkpoint)
    state_dict.load_into(model, state_dict.read_state_dict(Path(checkpoint)), what=f"student `{spec.name}`", classifier=spec.classifier)
    return model, None


def _epoch(run: RunDirectory, checkpoint: str) -> int | None:
    """The epoch of the main part that a checkpoint ends, counted from 1; None if the run does not say it."""
    if checkpoint == "last":  # of its finished epochs, those of phases do not count
        return sum(1 for record in run.records() if isinstance(record, dict) and record.get("phase") == MAIN)
    epoch = run.info().get("best_epoch")
    return epoch if type(epoch) is int and epoch > 0 else None
