"""From a profile to a finished run directory: teacher first, then the loop, then the deployed student and the result."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Protocol

import torch

from distillctl import __version__, deploy
from distillctl.api.data import Splits
from distillctl.assemble import (
    TeacherModel,
    assemble,
    build_deployed,
    build_splits,
    build_teacher,
    check_precision,
    evaluation_loader,
    pick_device,
)
from distillctl.data.splits import shared_images
from distillctl.data.workers import worker_deaths
from distillctl.engine.evaluate import Evaluation, chance_level, evaluate
from distillctl.engine.experiment import Experiment
from distillctl.engine.loop import Loop, Watcher, restore_student
from distillctl.engine.memory import keep_freed_memory
from distillctl.errors import DataError, DistillError, ProfileError, RunError
from distillctl.files import sha256
from distillctl.profile.reading import from_resolved, write_toml
from distillctl.profile.schema import Profile
from distillctl.profile.teacher import load_teacher_profile
from distillctl.registry import Registry
from distillctl.runs import ROOT, RunDirectory, place


class Audience(Watcher, Protocol):
    """A watcher that also hears what happens around the loop."""

    def start(self, profile: Profile, run: RunDirectory, experiment: Experiment, resumed_at: int) -> None:
        """The loop is about to begin, after so many finished epochs."""

    def note(self, text: str) -> None:
        """One line worth telling."""

    def teacher(self, evaluation: Evaluation, split: str) -> None:
        """The teacher was evaluated."""


@dataclass(frozen=True)
class Result:
    """What came out.

    already: the run was finished before this command.
    summary: the key `result` of run.json.
    """

    path: Path
    already: bool
    summary: Mapping[str, Any] = field(default_factory=dict)


@worker_deaths()
def train(
    profile: Profile,
    registry: Registry,
    audience: Audience,
    *,
    out: Path | None = None,
    device: str = "auto",
    fresh: bool = False,
    root: Path = ROOT,
    command: Sequence[str] = (),
    _ancestors: tuple[Path, ...] = (),
) -> Result:
    """Trains what the profile says, or continues it, or says that it is finished.

    Args:
        profile: a checked profile.
        registry: where its names were found.
        audience: is told what happens.
        out: the run directory; otherwise one below `root`, named after the profile.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        fresh: start a new run beside a finished or unfinished one.
        root: where runs lie.
        command: the command line, for the record.

    Raises:
        DistillError: anything a user can put right.
    """
    chosen = pick_device(device)
    check_precision(profile, chosen)
    keep_freed_memory(chosen)
    path, run = place(profile.name, profile.digest, root=root, out=out, fresh=fresh)
    by_profile = profile.teacher is not None and profile.teacher.table.profile is not None
    trainer = load_teacher_profile(profile, registry) if by_profile else None
    if run is not None and trainer is not None and run.info().get("teacher_digest") != trainer.digest:
        raise DataError(f"the teacher's profile `{trainer.path}` changed since `{run.path}` began", hint="start anew with `--fresh`")
    if run is not None and run.finished:
        return Result(run.path, already=True, summary=run.info().get("result", {}))
    splits = build_splits(profile)
    folder = None
    if trainer is not None:
        folder = _train_teacher(profile, trainer, registry, audience, device=device, root=root, command=command, ancestors=_ancestors)
    teacher = build_teacher(profile, registry, splits.classes, folder) if profile.teacher is not None else None
    source = None if teacher is None or teacher.source is None else sha256(teacher.source)
    if run is not None and run.info().get("teacher_sha256") != source:
        raise DataError(f"the teacher's weights changed since `{run.path}` began", hint="start anew with `--fresh`")
    for note in _seen_by_teacher(profile, registry, splits, folder):
        audience.note(note)
    judged = _judge_teacher(profile, splits, teacher, chosen, audience)
    experiment = assemble(profile, splits, teacher, chosen)
    try:
        if run is None:
            run = RunDirectory.create(
                path,
                profile=profile.text,
                resolved=write_toml(profile.resolved),
                environment=_environment(command, chosen, source),
                state={
                    "name": profile.name,
                    "digest": profile.digest,
                    "epochs": experiment.epochs,
                    "epoch": 0,
                    "head": experiment.head,
                    "method": "+".join(m.spec.name for m in profile.methods),
                    "data": splits.description,
                    "teacher_digest": trainer.digest if trainer is not None else None,
                    "teacher_sha256": source,
                },
            )
        loop = Loop(experiment, run, audience)
        for note in experiment.notes:
            audience.note(note)
        audience.start(profile, run, experiment, loop.position.epoch)
        loop.train()
        summary = _finish(profile, registry, run, loop, judged)
    finally:
        experiment.close()
    return Result(run.path, already=False, summary=summary)


def _train_teacher(
    profile: Profile,
    trainer: Profile,
    registry: Registry,
    audience: Audience,
    *,
    device: str,
    root: Path,
    command: Sequence[str],
    ancestors: tuple[Path, ...],
) -> Path:
    """The run directory of the profile that makes the teacher: trained first, or found finished."""
    here = profile.path.resolve()
    if trainer.path.resolve() in (here, *ancestors):
        raise ProfileError(f"`teacher.profile` of `{profile.path}` leads back to `{trainer.path.name}`", where=str(profile.path))
    audience.note(f"teacher: {trainer.path.name}")
    result = train(trainer, registry, audience, device=device, root=root, command=command, _ancestors=(*ancestors, here))
    audience.note(f"teacher: {'found' if result.already else 'trained'} in {result.path}")
    return result.path


def _seen_by_teacher(profile: Profile, registry: Registry, splits: Splits, folder: Path | None) -> list[str]:
    """Warns of held-out images that the teacher learnt: its run may have split the same data by another seed."""
    folder = folder or (profile.teacher.table.run if profile.teacher is not None else None)
    if folder is None:
        return []
    try:
        other = from_resolved(RunDirectory.open(folder).resolved, registry, student_only=True)
        if (other.seed, other.resolved["dataset"]) == (profile.seed, profile.resolved["dataset"]):
            return []
        learnt = build_splits(other).train
    except DistillError:  # the teacher comes from elsewhere: its data are not here, so nothing can be compared
        return []
    why = "its run split the data otherwise than this one"
    if other.seed != profile.seed:
        why += (
            f", by seed {other.seed} and not {profile.seed}; `--set teacher.overrides.seed={profile.seed}` trains a teacher with this seed"
        )
    return [
        f"WARNING: the teacher learnt {count} of the {len(images)} {name} images, so its figures are too good: {why}"
        for name, images in (("val", splits.val), ("test", splits.test))
        # A few may be duplicates within the data: CIFAR's test images have twins among those for training.
        if images is not None and (count := shared_images(images, learnt)) > len(images) // 100
    ]


def _judge_teacher(
    profile: Profile, splits: Splits, teacher: TeacherModel | None, device: torch.device, audience: Audience
) -> tuple[Evaluation, str] | None:
    """Evaluates the teacher before anything is learnt from it."""
    if teacher is None or profile.teacher is None:
        return None
    split = next(name for name in ("test", "val", "train") if getattr(splits, name) is not None)
    images = getattr(splits, split)
    loader = evaluation_loader(profile, splits, images, device)
    try:
        evaluation = evaluate(teacher.model.to(device), loader, splits.num_classes)
    finally:
        loader.close()
    audience.teacher(evaluation, split)
    chance = chance_level(images.labels, splits.num_classes)
    if evaluation.metrics.top1 <= chance and not profile.teacher.table.allow_untrained:
        raise RunError(
            f"the teacher `{teacher.shown}` is no better than chance: {evaluation.metrics.top1:.2%} on {split}, "
            f"where guessing reaches {chance:.2%}",
            hint="are its weights trained, for these classes in this order? `teacher.allow_untrained = true` goes on all the same",
        )
    return evaluation, split


def _finish(profile: Profile, registry: Registry, run: RunDirectory, loop: Loop, judged: tuple[Evaluation, str] | None) -> dict[str, Any]:
    """Evaluates the last and the best epoch, writes the deployed student and the result."""
    splits = loop.experiment.splits
    epochs = profile.train.epochs
    split = "test" if splits.test is not None else "val" if splits.val is not None else ""
    # A fresh model, as `eval` and everybody else will build it: the one that was trained may lie otherwise in memory
    # (channels last), which changes the last digits of its logits.
    head = loop.experiment.head
    model = build_deployed(profile, splits.num_classes, head).to(loop.experiment.device)
    summary: dict[str, Any] = {"split": split, "chosen_on": "val" if loop.chooses else "last epoch"}
    restore_student(model, run.last)
    last = loop.evaluate(model, split) if split else None
    best_epoch = restore_student(model, run.best)
    best = last if best_epoch == epochs else loop.evaluate(model, split) if split else None
    if judged is not None:
        summary["teacher"] = judged[0].metrics.as_dict()
    if best is not None and last is not None:
        summary["best"] = {"epoch": best_epoch, **best.metrics.as_dict()}
        summary["last"] = {"epoch": epochs, **last.metrics.as_dict()}
        if judged is not None and judged[1] == split:
            summary["agreement"] = float((judged[0].predictions == best.predictions).double().mean())
    _deploy(profile, registry, run, model, splits, head)
    run.update(state="finished", result=summary)
    return summary


def _deploy(
    profile: Profile, registry: Registry, run: RunDirectory, model: torch.nn.Module, splits: Splits, head: Mapping[str, Any] | None
) -> None:
    spec = profile.student.spec
    plugin = registry.models.plugin(spec)
    view = splits.view
    deploy.write_student(
        run.path,
        model,
        spec=spec,
        shown_name=spec.name,
        options=profile.student.options.model_dump(mode="json"),
        classes=splits.classes,
        preprocessing={
            "channels": splits.channels,
            "size": view.size,
            "resize": view.eval_resize or view.size,
            "mean": list(splits.mean),
            "std": list(splits.std),
        },
        package=plugin.package,
        version=plugin.version,
        extra={} if head is None else {"head": head},
    )


def _environment(command: Sequence[str], device: torch.device, teacher: str | None) -> dict[str, Any]:
    ours = {d.name: d.version for d in distributions() if d.name.startswith(("distillctl", "torch"))}
    return {
        "command": list(command),
        "distillctl": __version__,
        "packages": dict(sorted(ours.items())),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({torch.get_num_threads()} threads)",
        "git_commit": _git_commit(),
        "teacher_sha256": teacher,
    }


def _git_commit() -> str | None:
    """The commit of the folder one stands in, if it is a checkout."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


__all__ = ["Audience", "Result", "train"]
