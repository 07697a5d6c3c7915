"""From a profile to a finished run directory: teacher first, then the loop, then the deployed student and the result."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Protocol

import torch

from distillctl import __version__
from distillctl.api.data import Splits
from distillctl.build.experiment import (
    TeacherModel,
    assemble,
    build_deployed,
    build_splits,
    build_teacher,
    check_precision,
    evaluation_loader,
    pick_device,
)
from distillctl.commands.resume_check import adopt, changed, changed_profile, listing, packages, refuse
from distillctl.data.splits import shared_images
from distillctl.data.workers import worker_deaths
from distillctl.distributed.process_group import ProcessGroup, join, losses_of_processes
from distillctl.engine.determinism import prepare, promise
from distillctl.engine.evaluate import Evaluation, chance_level, evaluate
from distillctl.engine.experiment import Experiment
from distillctl.engine.loop import Loop, Watcher, restore_student
from distillctl.engine.memory import keep_freed_memory
from distillctl.errors import DataError, DistillError, ProfileError, RunError
from distillctl.files import sha256
from distillctl.models import deploy
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import from_resolved, write_toml
from distillctl.profile.schema import Profile
from distillctl.profile.teacher import load_teacher_profile
from distillctl.rundir.directory import ROOT, RunDirectory, place
from distillctl.rundir.lock import locked


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
@losses_of_processes()
def train(
    profile: Profile,
    registry: Registry,
    audience: Audience,
    *,
    out: Path | None = None,
    device: str = "auto",
    fresh: bool = False,
    from_previous: bool = False,
    accept_change: bool = False,
    root: Path = ROOT,
    command: Sequence[str] = (),
    _ancestors: tuple[Path, ...] = (),
) -> Result:
    """Trains what the profile says, or continues it, or says that it is finished.

    Where a launcher has started several processes (`RANK`, `WORLD_SIZE`), they train together: the first writes the run directory.

    Args:
        profile: a checked profile.
        registry: where its names were found.
        audience: is told what happens.
        out: the run directory; otherwise one below `root`, named after the profile.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        fresh: start a new run beside a finished or unfinished one.
        from_previous: continue from the checkpoint before the newest one, which may be damaged.
        accept_change: continue although profile, data, teacher, packages or the number of processes changed; noted in the run for good.
        root: where runs lie.
        command: the command line, for the record.

    Raises:
        DistillError: anything a user can put right.
        StoppedError: a signal ended it; the same call continues.
    """
    prepare(profile.train.deterministic)
    chosen = pick_device(device)
    check_precision(profile, chosen)
    keep_freed_memory(chosen)
    processes = join(chosen)
    found = place(profile.name, profile.digest, root=root, out=out, fresh=fresh) if processes.first else (root, None)
    path, existing = processes.broadcast(found)
    if existing is None and (from_previous or accept_change):
        raise DataError(
            f"there is no run in `{path}` to continue",
            where="--from-previous" if from_previous else "--accept-change",
            hint="a changed profile has another name below `runs`: name the directory of the run by `--out`",
        )
    if existing is not None and existing.finished and not (from_previous or accept_change):
        _refuse_finished(existing, profile, registry)
        return Result(existing.path, already=True, summary=existing.info().get("result", {}))
    with locked(path) if processes.first else nullcontext():
        plan = _Plan(profile, registry, audience, chosen, processes, path, root, tuple(command), (*_ancestors, profile.path.resolve()))
        return plan.run(from_previous=from_previous, accept_change=accept_change)


def _refuse_finished(run: RunDirectory, profile: Profile, registry: Registry) -> None:
    """A finished run stands for its profile and its teacher's; what else changed since is no longer of importance."""
    facts = {} if (trainer := _trainer(profile, registry)) is None else {"teacher_profile": trainer.digest}
    refuse(run, [*changed_profile(run, profile), *changed(run, facts)])


def _trainer(profile: Profile, registry: Registry) -> Profile | None:
    """The profile that makes the teacher, if one does."""
    by_profile = profile.teacher is not None and profile.teacher.table.profile is not None
    return load_teacher_profile(profile, registry) if by_profile else None


@dataclass(frozen=True)
class _Plan:
    """One training, with its place and its lock. ancestors: the profiles that led here, and this one."""

    profile: Profile
    registry: Registry
    audience: Audience
    device: torch.device
    processes: ProcessGroup
    path: Path
    root: Path
    command: tuple[str, ...]
    ancestors: tuple[Path, ...]

    def run(self, *, from_previous: bool, accept_change: bool) -> Result:
        """Does all of it; what may have changed is compared as soon as it is known."""
        profile, registry, processes = self.profile, self.registry, self.processes
        run = RunDirectory.open(self.path) if processes.broadcast((self.path / "run.json").is_file()) else None
        trainer = _trainer(profile, registry)
        with processes.one_after_the_first():
            splits = build_splits(profile)
        facts: dict[str, Any] = {
            "packages": packages(profile, registry),
            "data_listing": listing(splits),
            "teacher_profile": trainer.digest if trainer is not None else None,
            "processes": processes.count,
        }
        lines = [] if run is None else [*changed_profile(run, profile), *changed(run, facts)]
        if run is not None and not accept_change:
            refuse(run, lines)
        folder = None if trainer is None else self._train_teacher(trainer)
        with processes.one_after_the_first():
            teacher = build_teacher(profile, registry, splits.classes, folder) if profile.teacher is not None else None
        facts["teacher_sha256"] = None if teacher is None or teacher.source is None else sha256(teacher.source)
        if run is not None:
            lines += changed(run, {"teacher_sha256": facts["teacher_sha256"]})
            if not accept_change:
                refuse(run, lines)
        for note in _seen_by_teacher(profile, registry, splits, folder):
            self.audience.note(note)
        judged = self._judge_teacher(splits, teacher)
        experiment = assemble(profile, splits, teacher, self.device, processes)
        try:
            accepted = () if run is None else run.digests
            run = self._begin(run, experiment, facts)
            loop = Loop(experiment, run, self.audience, previous=from_previous, accepted=accepted)
            if self.processes.first and accepted:
                adopt(run, profile, {**facts, "epochs": experiment.epochs}, lines)
            for note in experiment.notes:
                self.audience.note(note)
            self.audience.start(profile, run, experiment, loop.position.epoch)
            loop.train()
            summary = self._finish(run, loop, judged)
        finally:
            experiment.close()
        return Result(run.path, already=False, summary=summary)

    def _begin(self, run: RunDirectory | None, experiment: Experiment, facts: dict[str, Any]) -> RunDirectory:
        """The run directory, made if it is not there."""
        profile = self.profile
        if self.processes.first and run is None:
            RunDirectory.create(
                self.path,
                profile=profile.text,
                resolved=write_toml(profile.resolved),
                environment=_environment(self.command, self.device, facts["teacher_sha256"]),
                state={
                    "name": profile.name,
                    "digest": profile.digest,
                    "epochs": experiment.epochs,
                    "epoch": 0,
                    "head": experiment.head,
                    "method": "+".join(m.spec.name for m in profile.methods),
                    "data": experiment.splits.description,
                    "reproducible": promise(experiment),
                    **facts,
                },
            )
        if self.processes.first:
            RunDirectory.open(self.path).tidy()
        self.processes.broadcast(None)  # nobody reads it before it is there
        return RunDirectory.open(self.path)

    def _train_teacher(self, trainer: Profile) -> Path:
        """The run directory of the profile that makes the teacher: trained first, or found finished."""
        if trainer.path.resolve() in self.ancestors:
            raise ProfileError(
                f"`teacher.profile` of `{self.profile.path}` leads back to `{trainer.path.name}`", where=str(self.profile.path)
            )
        self.audience.note(f"teacher: {trainer.path.name}")
        result = train(
            trainer,
            self.registry,
            self.audience,
            device=self.device.type if self.processes.count > 1 else str(self.device),
            root=self.root,
            command=self.command,
            _ancestors=self.ancestors,
        )
        self.audience.note(f"teacher: {'found' if result.already else 'trained'} in {result.path}")
        return result.path

    def _judge_teacher(self, splits: Splits, teacher: TeacherModel | None) -> tuple[Evaluation, str] | None:
        """Evaluates the teacher before anything is learnt from it."""
        profile = self.profile
        if teacher is None or profile.teacher is None:
            return None
        split = next(name for name in ("test", "val", "train") if getattr(splits, name) is not None)
        images = getattr(splits, split)
        loader = evaluation_loader(profile, splits, images, self.device, processes=self.processes)
        try:
            evaluation = evaluate(teacher.model.to(self.device), loader, splits.num_classes, self.processes)
        finally:
            loader.close()
        self.audience.teacher(evaluation, split)
        chance = chance_level(images.labels, splits.num_classes)
        if evaluation.metrics.top1 <= chance and not profile.teacher.table.allow_untrained:
            raise RunError(
                f"the teacher `{teacher.shown}` is no better than chance: {evaluation.metrics.top1:.2%} on {split}, "
                f"where guessing reaches {chance:.2%}",
                hint="are its weights trained, for these classes in this order? `teacher.allow_untrained = true` goes on all the same",
            )
        return evaluation, split

    def _finish(self, run: RunDirectory, loop: Loop, judged: tuple[Evaluation, str] | None) -> dict[str, Any]:
        """Evaluates the last and the best epoch, writes the deployed student and the result."""
        splits, head, profile = loop.experiment.splits, loop.experiment.head, self.profile
        epochs = profile.train.epochs
        split = "test" if splits.test is not None else "val" if splits.val is not None else ""
        # A fresh model, as `eval` and everybody else will build it: the one that was trained may lie otherwise in memory
        # (channels last), which changes the last digits of its logits.
        model = build_deployed(profile, splits.num_classes, head).to(self.device)
        summary: dict[str, Any] = {"split": split, "chosen_on": "val" if loop.chooses else "last epoch"}
        restore_student(model, run.checked(run.last))
        last = loop.evaluate(model, split) if split else None
        best_epoch = restore_student(model, run.checked(run.best))
        best = last if best_epoch == epochs else loop.evaluate(model, split) if split else None
        if judged is not None:
            summary["teacher"] = judged[0].metrics.as_dict()
        if best is not None and last is not None:
            summary["best"] = {"epoch": best_epoch, **best.metrics.as_dict()}
            summary["last"] = {"epoch": epochs, **last.metrics.as_dict()}
            if judged is not None and judged[1] == split:
                summary["agreement"] = float((judged[0].predictions == best.predictions).double().mean())
        if changes := run.info().get("changes"):
            summary["accepted_changes"] = sum(len(note["changes"]) for note in changes)
        if self.processes.first:
            _deploy(profile, self.registry, run, model, splits, head)
            run.update(state="finished", result=summary)
        self.processes.broadcast(None)
        return summary


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
