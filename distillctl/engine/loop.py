"""The one loop: for every part, for every epoch, for every batch, a step; then evaluate, record, save."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distillctl.api.method import Batch
from distillctl.api.task import Evaluation, Meter
from distillctl.api.tracker import StepReport, Tracker
from distillctl.distributed.stop_signals import exit_code
from distillctl.engine import checkpoint
from distillctl.engine.determinism import deterministic_algorithms
from distillctl.engine.evaluate import Comparison, evaluate
from distillctl.engine.experiment import MAIN, Experiment, Part
from distillctl.engine.interrupts import Interrupts
from distillctl.engine.memory import explained_shortage
from distillctl.engine.meter import Reading, TrainingMeter
from distillctl.engine.objective import teacher_of
from distillctl.engine.position import Clock, Position
from distillctl.engine.state import full_state, position_of, restore, settle_best
from distillctl.engine.step import Step
from distillctl.engine.trackers import Record
from distillctl.errors import PluginError, StoppedError
from distillctl.rundir.directory import RunDirectory
from distillctl.text import counted


class Loop:
    """Trains an experiment in a run directory, from its checkpoint if there is one.

    tracker: is told what happens, beside the record.
    previous: go on from the checkpoint before the newest.
    accepted: digests of other profiles whose checkpoints are taken.
    teacher: its evaluations by split, with which those of the student are compared.

    Its attribute `batch` is the last one of the run, if this process trained on it.
    """

    def __init__(
        self,
        experiment: Experiment,
        run: RunDirectory,
        tracker: Tracker,
        *,
        previous: bool = False,
        accepted: Sequence[str] = (),
        teacher: Mapping[str, Evaluation] | None = None,
    ) -> None:
        self.experiment = experiment
        self.run = run
        self.batch: Batch | None = None
        self._teacher = teacher or {}
        self._record = Record(run) if experiment.processes.first else Tracker()
        self._tracker = tracker
        processes = experiment.processes
        state = processes.broadcast(checkpoint.load_newest(run, previous=previous) if processes.first else None)
        self.position = Position() if state is None else position_of(state, experiment, run, accepted)
        # After the last step of the last epoch there may be no more of it to train.
        self.step = Step(experiment, experiment.part(min(self.position.epoch, experiment.epochs - 1)))
        if state is not None:
            restore(state, experiment, self.step, run)
            if processes.first:
                settle_best(run, self.position)
        self._interrupts = Interrupts(processes, experiment.settings.save_every)
        self._clock = Clock(self.position)

    @property
    def chooses(self) -> bool:
        """Whether a validation split chooses the best epoch; without one it is the last."""
        return self.experiment.splits.val is not None

    def train(self) -> Position:
        """Runs what is left of the epochs.

        Raises:
            StoppedError: a signal asked to stop; all that was done is saved.
            DistillError: the run failed, the disk is full, or another process was lost.
        """
        if self.experiment.processes.first:
            self.run.keep_records(self.position.epoch)
        self._clock.restart()
        with self._interrupts, deterministic_algorithms(self.experiment):
            while self.position.epoch < self.experiment.epochs and not self._is_over():
                self._epoch()
        if self.experiment.processes.first and not self.run.best.is_file():  # fewer epochs than before were accepted
            self._save_student(self.run.best, self.experiment.main.epochs)
        return self.position

    def _is_over(self) -> bool:
        """Whether the best epoch of a run with `patience` is too long ago; told by the position, so that a resumed run stops as well."""
        settings, position = self.experiment.settings, self.position
        done = position.epoch - self.experiment.main.begin
        if settings.patience is None or done < 1 or position.step or done % settings.evaluate_every:
            return False
        return done - position.best_epoch >= settings.patience

    def _epoch(self) -> None:
        """One epoch, or what is left of it."""
        experiment, position = self.experiment, self.position
        part = experiment.part(position.epoch)
        if part is not self.step.part:
            del self.step  # its hooks first
            self.step = Step(experiment, part)
        record = self._train_epoch(part)
        last = position.epoch + 1 == experiment.epochs
        self.step.check()
        self._agree_on_buffers()
        self._clock.tick()
        trained = position.epoch_seconds
        if part.phase is None and (last or record["epoch"] % experiment.settings.evaluate_every == 0):
            record |= self._evaluate()
        self._clock.tick()
        whole = position.epoch_seconds
        record["forwards"] = self._forwards(record)
        record |= {"seconds": round(whole, 3), "train_seconds": round(trained, 3), "evaluation_seconds": round(whole - trained, 3)}
        self._finish_epoch(record, last)
        if number := self._interrupts.stopping():
            raise self._stopped(number)

    def _train_epoch(self, part: Part) -> dict[str, Any]:
        """The steps of an epoch; what they gave."""
        experiment, position = self.experiment, self.position
        within = position.epoch - part.begin
        meter = self.step.learner.meter
        steps = experiment.loader.steps
        pace = _Pace(meter, experiment.processes.count)
        first = position.step + 1
        for done, batch in enumerate(experiment.loader.epoch(position.epoch, position.step), start=first):
            self.step(batch, within * steps + done - 1)
            position.step = done
            if done == steps and position.epoch + 1 == experiment.epochs:
                self.batch = batch
            if experiment.settings.compiled and done in (first, steps):  # the steps that compile, which takes some processes longer
                experiment.processes.all_gather(None, patient=True)
            pause = self._interrupts.after_step()
            if pause.save or pause.stop:
                self.step.check()
                self._save_within_epoch()
            if pause.stop:
                raise self._stopped(pause.stop)
            if pace.due() and done < steps:
                self._tracker.batch(self._report(part, within + 1, done, meter.read(), pace.rate))
        if self.step.graph is not None and self.step.graph.told:
            self._tracker.note(f"warning: {self.step.graph.told}")
            self.step.graph.told = ""
        reading, rate = meter.read(experiment.processes), pace.rate
        return {
            "phase": part.name,
            "epoch": within + 1,
            "lr": self._lr,
            "total": reading.total,
            "terms": reading.terms,
            **{f"train_{name}": value for name, value in reading.figures.items()},
            "methods": {name: float(value) for name, value in experiment.objective.metrics()},
            "images_per_second": round(rate, 1),
        }

    def _forwards(self, record: Mapping[str, Any]) -> dict[str, int]:
        """How many images went forward through either network in an epoch and its evaluation, over all processes."""
        experiment, learner = self.experiment, self.step.learner
        images = len(experiment.splits.train)
        evaluated = int(sum(record[split].get("count", 0) for split in ("val", "test") if split in record))
        student = images * learner.objective.student_forwards + evaluated
        if experiment.network is None:
            return {"student": student}
        asked = [teacher_of(key).number for key in learner.objective.teacher_norms]
        looks = evaluated * experiment.task.compares
        each = [images * asked.count(number) + looks for number in range(len(experiment.networks))]
        named = {f"teacher.{name}": count for name, count in zip(experiment.teacher_names, each, strict=False)}
        return {"student": student, "teacher": max(each), **named}

    def _report(self, part: Part, epoch: int, done: int, reading: Reading, rate: float) -> StepReport:
        steps = self.experiment.loader.steps
        return StepReport(part.name, epoch, done, steps, reading.total, reading.terms, reading.figures, reading.images, rate, self._lr)

    @property
    def _lr(self) -> float:
        """The rate of the last step; after a resume behind the last step of an epoch it is computed anew."""
        step, position = self.step, self.position
        within = position.epoch - step.part.begin
        rate = step.part.schedule((within * self.experiment.loader.steps + position.step - 1) / step.total_steps)
        return rate * step.learner.lr_scale

    def _evaluate(self) -> dict[str, Any]:
        """On the validation split; without one on the test split, for the record only."""
        splits = self.experiment.splits
        images, name = (splits.val, "val") if splits.val is not None else (splits.test, "test")
        if images is None:
            return {}
        evaluation = self.evaluate(self.step.learner.evaluated, name, interruptible=True)
        found: dict[str, Any] = {name: dict(evaluation.figures)}
        teacher = self._teacher.get(name)
        if teacher is not None and (agreement := self.experiment.task.agreement(teacher, evaluation)) is not None:
            found["agreement"] = agreement
        return found

    def evaluate(self, model: nn.Module, split: str, *, interruptible: bool = False, meter: Meter | None = None) -> Evaluation:
        """Evaluates a model on `val` or `test`. meter: takes the place of the task's own."""
        experiment = self.experiment
        experiment.processes.broadcast_tensors(list(model.buffers()))  # statistics of batch normalisation are those of the first process
        with ExitStack() as stack:
            loader = stack.enter_context(closing(experiment.evaluation(getattr(experiment.splits, split))))
            comparison = None
            if experiment.task.compares:
                assert experiment.network is not None
                images, network = experiment.splits.labelled, experiment.network
                labelled = () if images is None else stack.enter_context(closing(experiment.evaluation(images)))
                comparison = Comparison(experiment.student.spec, network.model, network.spec, labelled)
            stack.enter_context(explained_shortage(experiment))
            batches = self._until_stopped(loader) if interruptible else loader
            return evaluate(experiment.task, model, batches, experiment.processes, comparison, meter=meter)

    def _until_stopped(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; a signal ends a long evaluation, which the next run begins anew. Several processes finish it together."""
        for batch in batches:
            if self._interrupts.stopped_alone:
                self._save_within_epoch()
                raise self._stopped(self._interrupts.stopped_alone)
            yield batch

    def _finish_epoch(self, record: dict[str, Any], last: bool) -> None:
        position, first = self.position, self.experiment.processes.first
        within, chooses = record["epoch"], self.chooses
        figure = record["val"][self.experiment.task.metric] if "val" in record else None
        best = position.finish_epoch(within, figure, last=last and not chooses)
        self.step.learner.meter.restart()
        if first and best:
            self._save_student(self.run.next_best, within)
        keep_every = self.experiment.settings.keep_every
        if first and keep_every and record["phase"] == MAIN and within % keep_every == 0:
            self._save_student(self.run.kept(within), within)
        self._record.epoch(record)
        # The full checkpoint comes last: whatever was written before it is written again, alike, after a crash.
        self._save(None)
        if first:
            checkpoint.promote(self.run)
            self.run.update(
                epoch=position.epoch,
                best_epoch=position.best_epoch,
                seconds=round(position.seconds, 3),
                images_per_second=record["images_per_second"],
            )
        self._tracker.epoch(record)  # what others are told of is saved

    def _stopped(self, number: int) -> StoppedError:
        position = self.position
        name = signal.Signals(number).name
        done = counted(position.epoch, "epoch") + (f" and {position.step} of {self.experiment.loader.steps} steps" if position.step else "")
        return StoppedError(f"stopped by {name} after {done}, which are saved", exit_code(number), hint="the same command continues")

    def _agree_on_buffers(self) -> None:
        """Makes sure that what the first process saves is what all have.

        Raises:
            PluginError: a method changes a buffer by what this process alone saw.
        """
        processes = self.experiment.processes
        if processes.count == 1:
            return
        sums = {name: float(b.sum(dtype=torch.float64)) for name, b in self.experiment.objective.own_buffers() if b.numel()}
        for other in processes.all_gather(sums):
            if differing := [name for name in sums if sums[name] != other[name]]:
                raise PluginError(
                    f"the method's buffer `{differing[0]}` differs between processes",
                    hint="what changes a buffer has to pass through `distillctl.gather_rows`",
                )

    def _save_student(self, path: Path, epoch: int) -> None:
        student = self.step.learner.evaluated.state_dict()
        checkpoint.save(path, {"student": student, "epoch": epoch, "digest": self.experiment.digest})

    def _save_within_epoch(self) -> None:
        """The full checkpoint, with what the epoch has added up so far."""
        self._clock.tick()
        self._save(self.experiment.processes.all_gather(self.step.learner.meter.state_dict()))

    def _save(self, meters: list[dict[str, Any]] | None) -> None:
        """Writes the full checkpoint; `meters` are those of an epoch that is not finished."""
        if self.experiment.processes.first:
            checkpoint.save_last(self.run, full_state(self.experiment, self.step, self.position, meters))
        self.experiment.processes.broadcast(None)  # however long it takes; and what all say of it is true then
        self._interrupts.saved()


class _Pace:
    """Images a second since an epoch began or went on, and when it is time to say so."""

    def __init__(self, meter: TrainingMeter, processes: int) -> None:
        self._meter, self._processes, self._before = meter, processes, meter.images
        self._started = self._shown = time.perf_counter()

    def due(self) -> bool:
        """Whether a second has passed since the last time."""
        now = time.perf_counter()
        if now - self._shown < 1:
            return False
        self._shown = now
        return True

    @property
    def rate(self) -> float:
        """Images a second, over all processes."""
        return (self._meter.images - self._before) * self._processes / (time.perf_counter() - self._started)


__all__ = ["Loop"]
