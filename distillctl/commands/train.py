"""From a profile to a finished run directory: teacher first, then the loop, then the deployed student and the result."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distillctl.analysis.differing import write_pictures
from distillctl.api.data import Images
from distillctl.api.task import Evaluation, Task
from distillctl.api.tracker import RunStart, Tracker
from distillctl.build.advice import advice, average_advice
from distillctl.build.data import evaluation_loader, inspected_task, task_class
from distillctl.build.device import check_precision, pick_device, unused_gpu
from distillctl.build.experiment import assemble
from distillctl.build.models import TeacherModel, build_deployed, build_teacher
from distillctl.build.teachers import check_several, hashes_of, names_of, one_network
from distillctl.build.trackers import build_trackers
from distillctl.commands.environment import environment
from distillctl.commands.pictures import pictures_of
from distillctl.commands.report import write_run_report
from distillctl.commands.resume_check import adopt, changed, changed_profile, file_facts, listing, measured_white, packages, refuse
from distillctl.commands.run_costs import method_costs, run_costs
from distillctl.commands.seen_images import seen_by_teacher
from distillctl.data import EvalLoader
from distillctl.data.deployed_view import description
from distillctl.data.workers import worker_deaths
from distillctl.distributed.process_group import ProcessGroup, join, losses_of_processes
from distillctl.engine.determinism import prepare, promise, same_threads
from distillctl.engine.evaluate import Comparison, evaluate
from distillctl.engine.experiment import Experiment
from distillctl.engine.kept_answers import answers_of, keeping
from distillctl.engine.loop import Loop
from distillctl.engine.memory import keep_freed_memory, peak_memory
from distillctl.engine.state import restore_student
from distillctl.engine.trackers import Trackers
from distillctl.errors import DataError, Problem, ProfileError, RunError
from distillctl.models import deploy
from distillctl.models.cost import parameters
from distillctl.models.fake_quantise import ranges_of
from distillctl.models.forward_errors import explained_forward
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load_teacher_profile
from distillctl.profile.schema import Profile, TeacherChoice
from distillctl.profile.writing import write_toml
from distillctl.rundir import digests
from distillctl.rundir.answers import answers_file, read_answers, write_answers
from distillctl.rundir.directory import ROOT, RunDirectory, place
from distillctl.rundir.lock import BusyError, locked
from distillctl.text import one_line

_WAIT = 2.0
"""Seconds between two looks whether a teacher that somebody else trains is there."""


@dataclass(frozen=True)
class Result:
    """What came out.

    already: the run was finished before this command.
    task: knows how its figures are shown.
    summary: the key `result` of run.json.
    """

    path: Path
    already: bool
    task: type[Task]
    summary: Mapping[str, Any] = field(default_factory=dict)


@worker_deaths()
@losses_of_processes()
def train(
    profile: Profile,
    registry: Registry,
    display: Tracker,
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
        display: is told what happens, beside the trackers of the profile.
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
    path, existing, finished = processes.broadcast(_place(profile, root, out, fresh) if processes.first else (root, None, False))
    if existing is None and (from_previous or accept_change):
        raise DataError(
            f"there is no run in `{path}` to continue",
            where="--from-previous" if from_previous else "--accept-change",
            hint="a changed profile has another name below `runs`: name the directory of the run by `--out`",
        )
    damage = deploy.damage(existing.path) if existing is not None and finished else ""
    if existing is not None and finished and not (damage or from_previous or accept_change):
        _refuse_finished(existing, profile, registry)
        return Result(existing.path, True, task_class(profile, registry), existing.info().get("result", {}))
    threads = None if existing is None else existing.info().get("threads")
    with _locked_for_all(path, processes), same_threads(threads, chosen) as changed_threads:
        if damage:
            display.note(f"{damage}; the student is written again from the checkpoints")
        if not _ancestors and (unused := unused_gpu(device, chosen)):
            display.note(unused)
        if changed_threads:
            display.note(f"computing with {threads} threads, as when the run began: with another number its last digits would differ")
        plan = _Plan(profile, registry, display, chosen, processes, path, root, tuple(command), (*_ancestors, profile.path.resolve()))
        return plan.run(from_previous=from_previous, accept_change=accept_change)


def _place(profile: Profile, root: Path, out: Path | None, fresh: bool) -> tuple[Path, RunDirectory | None, bool]:
    """The directory, the run that lies there, and whether it is finished: for all processes, since another training may end it just now."""
    path, existing = place(profile.name, profile.digest, root=root, out=out, fresh=fresh)
    return path, existing, existing is not None and existing.finished


@contextmanager
def _locked_for_all(path: Path, processes: ProcessGroup) -> Iterator[None]:
    """The first process holds the lock of a run for all of them.

    Raises:
        BusyError: somebody else holds it; in all processes.
    """
    busy: tuple[Problem, ...] = ()
    with ExitStack() as stack:
        if processes.first:
            try:
                stack.enter_context(locked(path))
            except BusyError as error:
                busy = error.problems
        if busy := processes.broadcast(busy):
            raise BusyError(busy)
        yield


def _refuse_finished(run: RunDirectory, profile: Profile, registry: Registry) -> None:
    """A finished run stands for its profile and its teacher's; what else changed since no longer matters."""
    trainers = _trainers(profile, registry)
    facts = {"teacher_profile": _digests(trainers)} if any(trainers) else {}
    refuse(run, [*changed_profile(run, profile), *changed(run, facts)])


def _trainers(profile: Profile, registry: Registry) -> list[Profile | None]:
    """For each teacher the profile that makes it, if one does."""
    made = [one.teacher is not None and one.teacher.table.profile is not None for one in profile.by_teacher]
    return [load_teacher_profile(one, registry) if by_profile else None for one, by_profile in zip(profile.by_teacher, made, strict=True)]


def _digests(trainers: Sequence[Profile | None]) -> str | dict[str, str] | None:
    """Of the profile that makes the teacher; of several teachers by their models."""
    if len(trainers) < 2:
        return next((trainer.digest for trainer in trainers if trainer is not None), None)
    there = [trainer for trainer in trainers if trainer is not None]
    return {name: one.digest for name, one in zip(names_of(one.student.spec.name for one in there), there, strict=True)}


def _same_weights(hashes: str | Mapping[str, str | None] | None) -> list[str]:
    """A warning of teachers that are the same one."""
    known = [one for one in hashes.values() if one is not None] if isinstance(hashes, Mapping) else []
    return [] if len(set(known)) == len(known) else ["warning: two of the teachers have the same weights, and count as two"]


@dataclass
class _Plan:
    """One training, with its place and its lock. ancestors: the profiles that led here, and this one."""

    profile: Profile
    registry: Registry
    display: Tracker
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
        trainers = _trainers(profile, registry)
        with processes.one_after_the_first():
            profile, task, notes = inspected_task(profile, registry, None if run is None else measured_white(run), self.root)
        self.profile = profile
        facts: dict[str, Any] = {}
        lines = [] if run is None else changed_profile(run, profile)

        def compare(**found: Any) -> None:
            facts.update(found)
            if run is not None:
                lines.extend(changed(run, found))
                if not accept_change:
                    refuse(run, lines)

        compare(
            packages=packages(profile, registry),
            data_listing=listing(task.data),
            **file_facts(task.data),
            **({"skipped": counts} if (counts := {name: len(paths) for name, paths in task.data.skipped.items()}) else {}),
            teacher_profile=_digests(trainers),
            processes=processes.count,
        )
        for text in advice(profile, processes.count):
            self.display.note(f"warning: {text}")
        check_several(profile, task)
        folders = [None if trainer is None else self._train_teacher(trainer) for trainer in trainers]
        by_teacher = list(zip(profile.by_teacher, folders, strict=True))
        with processes.one_after_the_first():
            teachers = [build_teacher(one, registry, task, folder) for one, folder in by_teacher]
        compare(teacher_sha256=hashes_of(teachers))
        with closing(Trackers([self.display], build_trackers(profile) if processes.first else {})) as trackers:
            seen = [note for one, folder in by_teacher for note in seen_by_teacher(one, registry, task.data, folder)]
            for note in (*notes, *seen, *_same_weights(facts["teacher_sha256"])):
                trackers.note(note)
            judged = self._judge_teachers(task, teachers, trackers)
            if any(folders):
                runs = [None if folder is None else str(folder.absolute()) for folder in folders]
                facts["teacher_run"] = runs if len(runs) > 1 else runs[0]
            with closing(assemble(profile, task, teachers, self.device, processes)) as experiment:
                accepted = () if run is None else run.digests
                run = self._begin(run, experiment, facts)
                evaluations = {} if judged is None else judged.evaluations
                loop = Loop(experiment, run, trackers, previous=from_previous, accepted=accepted, teacher=evaluations)
                if processes.first and accepted:
                    adopt(run, profile, {**facts, "epochs": experiment.epochs}, lines)
                for text in average_advice(profile, experiment.loader.steps):
                    trackers.note(f"warning: {text}")
                for note in experiment.notes:
                    trackers.note(note)
                trackers.begin(self._start(run, experiment, loop.position.epoch))
                if task.compares:
                    self._evaluate_start(run, loop, trackers)
                loop.train()
                summary = self._finish(run, loop, judged, one_network(teachers).classes if teachers else ())
                trackers.end(summary)
            if processes.first:
                self._report(run, task, str(summary["split"]))
        return Result(run.path, False, type(task), summary)

    def _start(self, run: RunDirectory, experiment: Experiment, finished: int) -> RunStart:
        """What trackers are told at the beginning."""
        profile, task = self.profile, experiment.task
        return RunStart(
            path=run.path,
            name=profile.name,
            resolved=profile.resolved,
            data=task.data.overview,
            student=profile.student.spec.name,
            method="+".join(m.spec.name for m in profile.methods),
            parts=tuple((part.name, part.epochs) for part in experiment.parts),
            steps=experiment.loader.steps,
            device=str(experiment.device),
            metric=task.metric,
            names=task.names,
            show=task.show,
            records=run.records()[:finished],
            id=run.id,
        )

    def _begin(self, run: RunDirectory | None, experiment: Experiment, facts: dict[str, Any]) -> RunDirectory:
        """The run directory, made if it is not there."""
        profile = self.profile
        if self.processes.first and run is None:
            RunDirectory.create(
                self.path,
                profile=profile.text,
                resolved=write_toml(profile.resolved),
                environment=environment(profile, self.command, self.device, facts["teacher_sha256"]),
                state={
                    "name": profile.name,
                    "digest": profile.digest,
                    "epochs": experiment.epochs,
                    "epoch": 0,
                    "head": experiment.head,
                    "method": "+".join(m.spec.name for m in profile.methods),
                    "student": profile.student.spec.name,
                    **({} if experiment.network is None else {"teacher": experiment.network.spec.name}),
                    "shown": _shown(experiment.task),
                    "data": experiment.splits.description,
                    "reproducible": promise(experiment),
                    "threads": torch.get_num_threads(),
                    "directory": str(Path.cwd()),
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
        self.display.note(f"teacher: {trainer.path.name}")
        device, waits = self.device.type if self.processes.count > 1 else str(self.device), False
        while True:
            try:
                result = train(
                    trainer, self.registry, self.display, device=device, root=self.root, command=self.command, _ancestors=self.ancestors
                )
                break
            except BusyError as error:
                if not waits:
                    self.display.note(f"{error.problems[0].message}: waiting until the teacher is there")
                waits = True
                time.sleep(_WAIT)
        self.display.note(f"teacher: {'found' if result.already else 'trained'} in {result.path}")
        return result.path

    def _judge_teachers(self, task: Task, teachers: Sequence[TeacherModel], trackers: Trackers) -> _Judged | None:
        """Evaluates the teachers before anything is learnt from them, and the one, or all as one, also on the images by which epochs are
        chosen.
        """
        if not teachers:
            return None
        split = next(name for name in ("test", "val", "train") if getattr(task.data, name) is not None)
        whole, several = one_network(teachers), len(teachers) > 1
        names = names_of(one.shown for one in teachers) if several else [""]
        each = {}
        for choice, teacher, name in zip(self.profile.teachers, teachers, names, strict=True):
            evaluation, kept = self._judge(task, teacher, split, choice, trackers, name)
            each[name] = evaluation
        if several and task.compares:  # all as one agree with themselves
            return _Judged(split, {}, {}, each)
        if several:
            evaluation, kept = self._evaluate_teacher(whole, split, task, whole.model.to(self.device))
            figure = evaluation.figures[task.metric]
            trackers.teacher(split, evaluation.figures, f"mean of {len(teachers)} {task.show(task.metric, figure)}")
        evaluations = {split: evaluation}
        agrees = not task.compares and task.agreement(evaluation, evaluation) is not None
        if agrees and split != "val" and task.data.val is not None:
            evaluations["val"], _ = self._evaluate_teacher(whole, "val", task, whole.model)
        return _Judged(split, evaluations, kept, each if several else {})

    def _judge(
        self, task: Task, teacher: TeacherModel, split: str, choice: TeacherChoice, trackers: Trackers, name: str
    ) -> tuple[Evaluation, Mapping[str, torch.Tensor]]:
        """Evaluates one teacher, and refuses it where nothing should be learnt from it. name: of one of several."""
        images = getattr(task.data, split)
        model, view = teacher.model.to(self.device), task.data.view
        explained = explained_forward((task.data.channels, *view.shape), ("the teacher ", teacher.spec, model))
        with explained:
            evaluation, kept = self._evaluate_teacher(teacher, split, task, model)
        figure, floor = evaluation.figures[task.metric], task.floor(images)
        if not task.compares:  # with itself
            trackers.teacher(split, evaluation.figures, f"{name} {task.show(task.metric, figure)}".lstrip())
        elif "knn" in evaluation.figures:
            whose = f"the teacher's {task.names['knn']}" if not name else f"the {task.names['knn']} of the teacher {name}"
            trackers.note(f"{whose} is {task.show('knn', evaluation.figures['knn'])}")
        why, hint = ("", "") if choice.table.allow_untrained else task.doubt(evaluation, images)
        if why:
            raise RunError(
                f"the teacher `{teacher.shown}` {why}",
                hint=f"{hint}; `{choice.key}.allow_untrained = true` goes on all the same",
            )
        if figure <= floor and not choice.table.allow_untrained:
            raise RunError(
                f"the teacher `{teacher.shown}` is no better than chance: {task.show(task.metric, figure)} on {split}, "
                f"where guessing reaches {task.show(task.metric, floor)}",
                hint="are its weights trained, for these classes in this order? "
                f"`{choice.key}.allow_untrained = true` goes on all the same",
            )
        return evaluation, kept

    def _loader(self, task: Task, images: Images) -> closing[EvalLoader]:
        return closing(evaluation_loader(self.profile, task, images, self.device, processes=self.processes))

    def _evaluate_teacher(
        self, teacher: TeacherModel, split: str, task: Task, model: nn.Module
    ) -> tuple[Evaluation, Mapping[str, torch.Tensor]]:
        """The teacher on a split, and what is kept of its answers."""
        meter = keeping(task)
        try:
            with ExitStack() as stack:
                loader = stack.enter_context(self._loader(task, getattr(task.data, split)))
                labelled = () if task.data.labelled is None else stack.enter_context(self._loader(task, task.data.labelled))
                comparison = Comparison(teacher.spec, model, teacher.spec, labelled) if task.compares else None
                return evaluate(task, model, loader, self.processes, comparison, meter=meter), meter.kept()
        except RunError as error:
            raise RunError(
                f"the teacher {teacher.called} cannot be judged on {split}: {error.problems[0].message}",
                hint="are its weights whole, and are `mean` and `std` of the data those with which it was trained?",
            ) from error

    def _evaluate_start(self, run: RunDirectory, loop: Loop, trackers: Trackers) -> None:
        """The figures of the student before training, kept as `start` in run.json, so that one sees what was learnt."""
        task, position = loop.experiment.task, loop.position
        split = next((name for name in ("test", "val") if getattr(task.data, name) is not None), "")
        if not split or position.epoch or position.step or self.processes.broadcast("start" in run.info()):
            return
        figures = loop.evaluate(loop.step.learner.evaluated, split).figures
        if self.processes.first:
            run.update(start={"split": split, **figures})
        told = ", ".join(f"{words} {task.show(name, figures[name])}" for name, words in task.names.items() if name in figures)
        trackers.note(f"before training on {split}: {told}")

    def _finish(self, run: RunDirectory, loop: Loop, judged: _Judged | None, classes_of_teacher: Sequence[str]) -> dict[str, Any]:
        """Writes the deployed student, evaluates the last and the best epoch, and writes the result."""
        experiment, profile = loop.experiment, self.profile
        task, head = experiment.task, experiment.head
        epochs = loop.position.epoch - experiment.main.begin
        split = "test" if task.data.test is not None else "val" if task.data.val is not None else ""
        # A fresh model, as `eval` and everybody else will build it: the one that was trained may lie otherwise in memory
        # (channels last), which changes the last digits of its logits.
        model = build_deployed(profile, task, head).to(self.device)
        summary: dict[str, Any] = {"split": split, "chosen_on": "val" if loop.chooses else "last epoch"}
        best_epoch = restore_student(model, digests.check(run.best))
        if self.processes.first:
            _deploy(profile, self.registry, run, model, task, head, classes_of_teacher if task.compares else task.data.classes)
        meter = keeping(task)
        with _student_is_written(run, best_epoch):
            last = best = loop.evaluate(model, split, meter=meter) if split else None
            if split and best_epoch != epochs:
                restore_student(model, digests.check(run.last))
                last = loop.evaluate(model, split)
        if epochs < profile.train.epochs:
            summary["stopped_early"] = epochs
        if task.data.skipped:
            summary["skipped"] = {name: len(paths) for name, paths in task.data.skipped.items()}
        if judged is not None and not task.compares:
            summary["teacher"] = dict(judged.evaluation.figures)
            if judged.each:
                summary["teachers"] = {name: dict(evaluation.figures) for name, evaluation in judged.each.items()}
        elif judged is not None and not judged.each and "knn" in judged.evaluation.figures:
            summary["teacher_knn"] = judged.evaluation.figures["knn"]
        if task.compares and (start := self.processes.broadcast(run.info().get("start"))):
            summary["start"] = start
        if best is not None and last is not None:
            summary["best"] = {"epoch": best_epoch, **best.figures}
            summary["last"] = {"epoch": epochs, **last.figures}
            images = getattr(task.data, split)
            if not task.compares:  # there is no label that one could guess
                summary |= {"chance": task.chance(images), "floor": task.floor(images)}
            if judged is not None and split in judged.evaluations and (agreement := task.agreement(judged.evaluation, best)) is not None:
                summary["agreement"] = agreement
        sides = {"student": model, "teacher": None if experiment.network is None else experiment.network.model}
        summary["parameters"] = {name: parameters(side) for name, side in sides.items() if side is not None}
        if changes := run.info().get("changes"):
            summary["accepted_changes"] = sum(len(note["changes"]) for note in changes)
        if self.processes.first:
            # Beside the result, which another machine would reach as well.
            self._keep_answers(run, split, {"best": meter.kept(), "teacher": {} if judged is None else judged.kept})
            alone = zip(experiment.teacher_names, experiment.networks, strict=False)
            sides |= {f"teacher.{name}": network.model for name, network in alone}
            costs = run_costs(experiment, {name: side for name, side in sides.items() if side is not None})
            run.update(state="finished", result=summary, costs={**costs, **self._spent(run, loop, judged, best, last)})
        self.processes.broadcast(None)
        return summary

    def _keep_answers(self, run: RunDirectory, split: str, kept: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Writes what student and teacher answered, from which others draw figures and tables. A run is finished without them, too."""
        for who, answers in kept.items():
            if answers and split:
                try:
                    write_answers(answers_file(run.path, split, who), answers_of(answers))
                except OSError as error:
                    self.display.note(f"warning: the answers on {split} cannot be written: {(error.strerror or str(error)).lower()}")
                    return

    def _report(self, run: RunDirectory, task: Task, split: str) -> None:
        """Writes `report.html`, and the pictures in it. It can be made again, so that nothing that happens here is the run's error."""
        try:
            files = [answers_file(run.path, split, who) for who in ("best", "teacher")]
            if all(file.is_file() for file in files) and (pictures := pictures_of(task, split, *map(read_answers, files))) is not None:
                write_pictures(run.path, pictures)
            write_run_report(run.path)
        except Exception as error:  # noqa: BLE001 - the training is done and written
            why = one_line(f"{type(error).__name__}: {error}".removesuffix(": "), 200)
            self.display.note(f"warning: the run is complete, but its report could not be written: {why}")

    def _spent(
        self, run: RunDirectory, loop: Loop, judged: _Judged | None, best: Evaluation | None, last: Evaluation | None
    ) -> dict[str, Any]:
        """What the methods cost, the most memory, and how many images went forward through student and teacher in the whole run."""
        records = run.records()
        forwards: Counter[str] = Counter()
        for record in records:
            forwards.update(record.get("forwards", {}))
        ends = [one for one in (best, None if last is best else last) if one is not None]
        forwards["student"] += int(sum(evaluation.figures["count"] for evaluation in ends))
        if judged is not None:
            whole = int(sum(evaluation.figures["count"] for evaluation in judged.evaluations.values()))
            alone = {name: int(evaluation.figures["count"]) for name, evaluation in judged.each.items()}
            forwards["teacher"] += whole + max(alone.values(), default=0)
            forwards.update({f"teacher.{name}": whole + count for name, count in alone.items()})
        seen = len(loop.experiment.splits.train) * len(records)
        peak = peak_memory(self.device)
        return {
            "methods": method_costs(loop.step, loop.batch),
            "forwards": dict(forwards),
            "images": seen,
            **({} if peak is None else {"peak_memory": peak}),
        }


@dataclass(frozen=True)
class _Judged:
    """The teacher's evaluations by split; of several, those of all as one, if there are any.

    split: the one by which they were judged. kept: of the answers on that one. each: of several, their evaluations on it by name.
    """

    split: str
    evaluations: Mapping[str, Evaluation]
    kept: Mapping[str, torch.Tensor]
    each: Mapping[str, Evaluation]

    @property
    def evaluation(self) -> Evaluation:
        return self.evaluations[self.split]


def _shown(task: Task) -> dict[str, Any]:
    """How the figures of a run are shown where nobody loads torch."""
    percent = [name for name in task.names if task.show(name, 0.5).endswith("%")]
    return {"metric": task.metric, "names": dict(task.names), "percent": percent}


@contextmanager
def _student_is_written(run: RunDirectory, epoch: int) -> Iterator[None]:
    """Around the last evaluations: says what a training has given although they fail."""
    try:
        yield
    except (DataError, RunError) as error:
        written = Problem(
            f"the training is complete and its student, of epoch {epoch}, is written to `{run.path / 'student.safetensors'}`, "
            "but it could not be evaluated",
            hint="the same command evaluates it when the files are right; `--accept-change` takes a file that was repaired since",
        )
        raise type(error)([*error.problems, written]) from error


def _deploy(
    profile: Profile,
    registry: Registry,
    run: RunDirectory,
    model: nn.Module,
    task: Task,
    head: Mapping[str, Any] | None,
    classes: Sequence[str],
) -> None:
    spec, data = profile.student.spec, task.data
    plugin = registry.models.plugin(spec)
    extra: dict[str, object] = {} if head is None else {"head": head}
    if profile.dataset.task != deploy.TASK:
        extra["task"] = profile.dataset.task
    if data.class_ids:
        extra["class_ids"] = list(data.class_ids)
    if profile.train.quantize is not None:
        extra["quantize"] = {"kind": profile.train.quantize, "ranges": ranges_of(model)}
    deploy.write_student(
        run.path,
        model,
        spec=spec,
        shown_name=spec.name,
        options=profile.student.options.model_dump(mode="json", exclude_none=True),
        outputs=task.outputs,
        classes=classes,
        preprocessing=description(data),
        package=plugin.package,
        version=plugin.version,
        extra=extra,
    )
