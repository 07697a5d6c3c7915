"""Evaluates a run from its directory alone, without the profile it came from; and what every evaluation after training shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distillctl.analysis.differing import Pictures
from distillctl.api.data import Images
from distillctl.api.specs import ModelSpec
from distillctl.api.task import Evaluation, Task
from distillctl.build.data import Kind, build_task, evaluation_loader, tta_kind, tta_sizes
from distillctl.build.device import channels_last, pick_device, placed
from distillctl.build.models import TeacherModel, build_deployed, build_teacher
from distillctl.build.teachers import hashes_of, one_network
from distillctl.commands.pictures import pictures_of
from distillctl.commands.resume_check import changed, changed_images, refuse
from distillctl.data.workers import worker_deaths
from distillctl.engine.evaluate import Comparison, evaluate
from distillctl.engine.experiment import MAIN
from distillctl.engine.kept_answers import KeepingMeter, answers_of, keeping
from distillctl.engine.memory import keep_freed_memory
from distillctl.engine.precision import precision_on
from distillctl.errors import DataError, DistillError, Problem, ProfileError
from distillctl.models import deploy
from distillctl.models.fake_quantise import has_ranges, restore
from distillctl.models.features import evaluating
from distillctl.models.forward_errors import explained_forward
from distillctl.plugin.registry import Registry
from distillctl.profile.document import parse_edit
from distillctl.profile.reading import from_resolved
from distillctl.profile.schema import Profile
from distillctl.profile.teacher import has_fixed_size
from distillctl.rundir import digests
from distillctl.rundir.answers import Answers
from distillctl.rundir.directory import ROOT, RunDirectory, runs_in
from distillctl.weights import read_file, state_dict


@dataclass(frozen=True)
class Report:
    """An evaluation of one network on one split.

    run: the run whose student it is; None for a network that the command line names.
    model, data: the name of such a network, and the profile or run whose images it saw.
    checkpoint: `best`, `last`, a file of weights, or the name of such weights as a model knows.
    epoch: of the checkpoint; None for weights from elsewhere.
    tta: one of `Task.views`, or empty.
    figures: by name.
    plain: the figures without test-time augmentation, where there is some.
    classes: a line for each class, as `Task.breakdown` has it; empty where there are no classes.
    class_figures, counts: those of the task: figures in these lines with the words for them, and what is counted there.
    shown: name and text of every figure that training records, too, but the number of images; with test-time augmentation, the text
        without it behind.
    more: the other figures in words.
    notes: what had to be changed to load the weights or to show the images.
    confusion: int64, (C, C): images of class i that were taken for class j; None where there are no classes, or very many.
    changes: what the command line said of data and evaluation, as `KEY=VALUE`.
    pictures: of images to which student and teacher answer most differently, where both were asked.
    answers: to each image of the split, of `student` and, where it was asked, `teacher`; empty where answers are not classes.
    """

    run: Path | None
    checkpoint: str
    epoch: int | None
    split: str
    tta: str
    figures: Mapping[str, float]
    plain: Mapping[str, float] | None
    classes: Sequence[Mapping[str, Any]]
    shown: Sequence[tuple[str, str]]
    model: str = ""
    data: Path | None = None
    more: Sequence[str] = ()
    notes: Sequence[str] = ()
    confusion: Tensor | None = None
    class_figures: Mapping[str, str] = field(default_factory=dict)
    counts: str = "images"
    changes: Sequence[str] = ()
    answers: Mapping[str, Answers] = field(default_factory=dict)
    pictures: Pictures | None = None

    @property
    def called(self) -> str:
        """What was evaluated."""
        return self.model if self.run is None else str(self.run)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **({"model": self.model, "data": str(self.data)} if self.run is None else {"run": str(self.run)}),
            "checkpoint": self.checkpoint,
            "epoch": self.epoch,
            "split": self.split,
            "tta": self.tta,
            **self.figures,
            **({} if self.plain is None else {"plain": dict(self.plain)}),
            **({"notes": list(self.notes)} if self.notes else {}),
            **({"set": list(self.changes)} if self.changes else {}),
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
_OTHERS = "`--tta flip`, `five_crop` and `ten_crop` keep the size; or leave it out"
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
    against_teacher: bool = False,
    overrides: Sequence[str] = (),
) -> Report:
    """Evaluates a run.

    Args:
        path: the run directory; None for the newest finished run below `root`.
        registry: where the names of its profile are found.
        split: `val` or `test`; empty for the test split, or where there is none the validation split.
        checkpoint: `best`, `last`, or a file of weights.
        tta: one of `Task.views`, `auto` (what the profile says, or what suits the data), or empty for none.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        root: where runs lie.
        accept_change: evaluate although the classes or the images of the split are not those with which the run was trained.
        against_teacher: compare the student with its teacher, too.
        overrides: `KEY=VALUE` of the tables `dataset` and `evaluate`, such as `dataset.root=FOLDER`, or of `train.workers`.

    Raises:
        DistillError: the run, the split or the checkpoint is not there, or the images changed.
    """
    run = _meant(path, checkpoint, root)
    chosen = pick_device(device)
    keep_freed_memory(chosen)
    check_keys(overrides, "dataset", "evaluate")
    profile = with_data_found(from_resolved(run.check_resolved(), registry, student_only=True, overrides=overrides), run)
    task = build_task(profile, registry)
    split, images = images_of(task, split, f"`{profile.dataset.spec.name}` of `{run.path}`", ("val", "test"))
    if against_teacher:
        check_against(task, profile)
    if not accept_change:
        check_images(run, profile, task, registry, split)
    model, epoch = _model(run, profile, task, checkpoint, registry)
    teacher = None
    if task.compares or against_teacher:
        teacher = teacher_of_run(run, registry, task, chosen, overrides, accept_change=accept_change)
    spec = profile.student.spec
    part = Part(profile, task, images, chosen, spec, model.to(chosen), has_fixed_size(spec), teacher)
    found = figures_of(part, split, tta, overrides, against_teacher=against_teacher)
    answers, pictures = found["answers"], None
    told = run.info().get("result", {}).get("split") == split  # whose answers the report of the run is of
    if told and checkpoint == "best" and not found["tta"] and {"student", "teacher"} <= answers.keys():
        pictures = pictures_of(task, split, answers["student"], answers["teacher"])
    return Report(run=run.path, checkpoint=checkpoint, epoch=epoch, pictures=pictures, **found)


def check_keys(overrides: Sequence[str], *tables: str) -> None:
    """Whether an evaluation reads all that is set: keys of these tables, and `train.workers`.

    Raises:
        ProfileError: there is another key.
    """
    allowed = (*(f"{table}." for table in tables), "train.workers=")
    if wrong := next((text for text in overrides if not text.replace(" ", "").startswith(allowed)), None):
        hint = f"allowed: keys of {', '.join(tables[:-1])} and {tables[-1]}, and `train.workers`"
        raise ProfileError(f"`{wrong}` is not a key that an evaluation reads", where="--set", hint=hint)


def check_effects(overrides: Sequence[str], split: str, tta: str, kind: str) -> None:
    """Whether what is set changes anything.

    tta: as it was asked for. kind: what is meant by it.

    Raises:
        ProfileError: a key has no effect on this evaluation.
    """
    idle: dict[tuple[str, ...], str] = {
        ("dataset", "limit"): "" if split == "train" else f"on the {split} split: it cuts the training images",
        ("evaluate", "every"): "on an evaluation: it says how often a training has one",
        ("evaluate", "tta"): "" if tta == "auto" else "without a bare `--tta`, which asks for it",
        ("evaluate", "tta_resize"): "" if kind in ("five_crop", "ten_crop") else "without `--tta five_crop` or `ten_crop`",
        ("evaluate", "tta_scales"): "" if kind == "multi_scale" else "without `--tta multi_scale`",
    }
    for text in overrides:
        if why := idle.get(parse_edit(text).parts[:2]):
            raise ProfileError(f"`{text}` has no effect {why}", where="--set", hint="leave it out")


def images_of(task: Task, split: str, data: str, allowed: Sequence[str]) -> tuple[str, Images]:
    """The split that is meant, and its images.

    data: the data set in messages.

    Raises:
        DistillError: there is none of that name.
    """
    split = split or ("test" if task.data.test is not None else "val")
    if split not in allowed:
        raise ProfileError(f"unknown split `{split}`", where="--split", hint=f"allowed: {', '.join(allowed)}")
    images: Images | None = getattr(task.data, split)
    if images is None:
        raise DataError(f"the data set {data} has no {split} split")
    return split, images


def check_images(run: RunDirectory, profile: Profile, task: Task, registry: Registry, split: str) -> None:
    """Whether the classes and the images of a split are those with which a run was trained.

    Raises:
        DataError: they are others, or the data set's own file is.
    """
    data = profile.dataset.spec
    deploy.check_own_file(registry, data, run.info().get("packages", {}).get(registry.datasets.plugin(data).package), run.path)
    refuse(run, changed_images(run, task, split), _HINT)


def check_against(task: Task, profile: Profile) -> None:
    """Whether figures against a teacher can be told that are not told anyway.

    Raises:
        ProfileError: they cannot.
    """
    name = profile.dataset.spec.name
    if task.compares:
        raise ProfileError(f"the figures of `{name}` compare with the teacher anyway", where="--against-teacher", hint="leave it out")
    if not task.teacher_names:
        raise ProfileError(f"the task of `{name}` has no figures against a teacher", where="--against-teacher", hint="leave it out")


@dataclass(frozen=True)
class Part:
    """A network, the images that it is evaluated on, and where.

    one_size: whether the network sees all images at one size. teacher: with which it is compared, if it is.
    notes: what is to be said before. stranger: whether it was trained nobody knows how, perhaps with other classes.
    """

    profile: Profile
    task: Task
    images: Images
    device: torch.device
    spec: ModelSpec
    model: nn.Module
    one_size: bool
    teacher: TeacherModel | None
    notes: Sequence[str] = ()
    stranger: bool = False


def figures_of(part: Part, split: str, tta: str, overrides: Sequence[str], *, against_teacher: bool) -> dict[str, Any]:
    """What a `Report` says of the answers, and of what was asked for.

    overrides: `KEY=VALUE`, of which each must have an effect.

    Raises:
        DistillError: a view cannot be had, or a network cannot take it.
    """
    profile, task, images = part.profile, part.task, part.images
    kind = tta_kind(profile, task, images, tta)
    check_effects(overrides, split, tta, kind)
    sizes = tta_sizes(profile, task, kind)
    bound = [f"model `{part.spec.name}`"] if part.one_size else []
    bound += [f"teacher `{part.teacher.shown}`"] if part.teacher is not None and part.teacher.one_size else []
    if sizes and bound:
        raise ProfileError(
            f"the {bound[0]} sees images at one size alone, which `multi_scale` would not change", where="--tta", hint=_OTHERS
        )
    for size in sizes:
        _try(part, size)

    kept: dict[str, Answers] = {}

    def evaluated(kind: Kind, sizes: Sequence[int]) -> Evaluation:
        with ExitStack() as stack:
            loader = stack.enter_context(closing(evaluation_loader(profile, task, images, part.device, tta=kind)))
            comparison = None
            if part.teacher is not None:
                beside = task.data.labelled
                labelled = () if beside is None else stack.enter_context(closing(evaluation_loader(profile, task, beside, part.device)))
                comparison = Comparison(part.spec, part.teacher.model, part.teacher.spec, labelled)
            meters = {"student": keeping(task, task.details(teacher=against_teacher))}
            if against_teacher:
                meters["teacher"] = KeepingMeter(meters["student"], lambda pair, batch: task.kept(pair[1], batch))
            evaluation = evaluate(task, part.model, loader, comparison=comparison, meter=[*meters.values()][-1], sizes=sizes)
            kept.clear()
            kept.update({who: answers_of(found) for who, meter in meters.items() if (found := meter.kept())})
            return evaluation

    plain = evaluated("", ()) if kind else None
    evaluation = evaluated(kind, sizes)
    doubt, hint = task.doubt(evaluation, images) if part.stranger and not task.compares else ("", "")
    names = {name: words for name, words in task.names.items() if name in evaluation.figures}
    beside = {} if plain is None else {name: f" ({task.show(name, plain.figures[name])} without)" for name in names}
    details = {**task.detail_names, **task.teacher_names}
    return {
        "split": split,
        "tta": kind,
        "changes": tuple(overrides),
        "notes": (*part.notes, *([f"the model {doubt}: {hint}"] if doubt else [])),
        "figures": evaluation.figures,
        "plain": None if plain is None else plain.figures,
        "classes": task.breakdown(evaluation),
        "class_figures": task.class_figures,
        "counts": task.counts,
        "shown": [(words, task.show(name, evaluation.figures[name]) + beside.get(name, "")) for name, words in names.items()],
        "more": [f"{words} {task.show(name, evaluation.figures[name])}" for name, words in details.items() if name in evaluation.figures],
        "confusion": task.confusion(evaluation),
        "answers": kept,
    }


@torch.no_grad()
def _try(part: Part, size: int) -> None:
    """Whether the networks take images of this side length.

    Raises:
        RunError: one does not.
    """
    blank = torch.zeros(1, part.task.data.channels, size, size, device=part.device)
    networks = [("the model ", part.spec, part.model)]
    networks += [] if part.teacher is None else [("the teacher ", part.teacher.spec, part.teacher.model)]
    for network in networks:
        with evaluating(network[2]), explained_forward(blank.shape[1:], network):
            network[2](blank)


def teacher_of_run(
    run: RunDirectory, registry: Registry, task: Task, device: torch.device, overrides: Sequence[str] = (), *, accept_change: bool = False
) -> TeacherModel:
    """The teacher of a run, with which its student is compared.

    Raises:
        DataError: it is gone, or it is another one. ProfileError: the run was trained without a teacher.
    """
    profile = from_resolved(run.check_resolved(), registry, student_only=True, with_teacher=True, overrides=overrides)
    if not profile.teachers:
        raise ProfileError(f"`{run.path}` was trained without a teacher", where="--against-teacher", hint="leave it out")
    try:
        teachers = [
            build_teacher(one, registry, task, run_of_teacher(run, number) if choice.table.profile is not None else None)
            for number, (choice, one) in enumerate(zip(profile.teachers, profile.by_teacher, strict=True))
        ]
        teacher = one_network(teachers)
        if not accept_change and any(one.source is not None for one in teachers):
            refuse(run, changed(run, {"teacher_sha256": hashes_of(teachers)}), _TEACHER_HINT)
    except DistillError as error:
        why = f"the figures of `{run.path}` are told by its teacher, which cannot be asked"
        raise DataError([Problem(why), *error.problems]) from error
    last, _ = channels_last(device, precision_on(device, profile.train.precision), task.data.view.size)
    placed(teacher.model, device, last)  # as in training
    return teacher


def run_of_teacher(run: RunDirectory, number: int) -> Path:
    """The run that made the teacher of another one. number: of one among several.

    Raises:
        DataError: it is gone.
    """
    info = run.info()
    told = info.get("teacher_run")
    if isinstance(told, list) and number < len(told):
        told = told[number]
    if isinstance(told, str):
        folder = Path(told)
        return folder if folder.exists() else run.path.parent / folder.name  # all runs were moved together
    for other in runs_in(run.path.parent):  # older runs do not say where it lies
        with suppress(DataError):
            if other.info().get("digest") == info.get("teacher_profile"):
                return other.path
    raise DataError("the run of its teacher is not beside it")


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
    state = state_dict.read_state_dict(Path(checkpoint))
    if not has_ranges(state):
        restore(model)  # weights without ranges are those of a network in floating point
    state_dict.load_into(model, state, what=f"student `{spec.name}`", classifier=spec.classifier)
    return model, None


def _epoch(run: RunDirectory, checkpoint: str) -> int | None:
    """The epoch of the main part that a checkpoint ends, counted from 1; None if the run does not say it."""
    if checkpoint == "last":  # of its finished epochs, those of phases do not count
        return sum(1 for record in run.records() if isinstance(record, dict) and record.get("phase") == MAIN)
    epoch = run.info().get("best_epoch")
    return epoch if type(epoch) is int and epoch > 0 else None
