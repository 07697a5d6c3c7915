"""The one loop: for every epoch, for every batch, a step; then evaluate, record, save."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from distillctl.api.method import Batch
from distillctl.distributed.stop_signals import exit_code
from distillctl.engine import checkpoint
from distillctl.engine.determinism import reproducible
from distillctl.engine.evaluate import Evaluation, evaluate
from distillctl.engine.experiment import MAIN, Experiment, Part
from distillctl.engine.interrupts import Pauses
from distillctl.engine.memory import explained_shortage
from distillctl.engine.meter import Reading, Tally
from distillctl.engine.step import Step
from distillctl.errors import DataError, PluginError, StoppedError
from distillctl.rundir.directory import RunDirectory


class Watcher(Protocol):
    """Somebody who looks on; the command line draws a display from it."""

    def batch(self, part: Part, epoch: int, done: int, steps: int, reading: Reading, rate: float, lr: float) -> None:
        """About once a second: batches done of this epoch of a part, means so far, images a second, learning rate."""

    def epoch(self, record: dict[str, Any]) -> None:
        """An epoch is over: the line that goes into metrics.jsonl."""


@dataclass
class Position:
    """How far a run has come; what a checkpoint says beside the weights.

    epoch: finished epochs of all parts together.
    step: steps done of the next one.
    best_epoch: of the main part, counted from 1.
    seconds, epoch_seconds: of all training and evaluation so far, and of the epoch that is not finished.
    """

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_top1: float = -1.0
    seconds: float = 0.0
    epoch_seconds: float = 0.0


class Loop:
    """Trains an experiment in a run directory, from its checkpoint if there is one.

    previous: go on from the checkpoint before the newest.
    accepted: digests of other profiles whose checkpoints are taken.
    """

    def __init__(
        self, experiment: Experiment, run: RunDirectory, watcher: Watcher, *, previous: bool = False, accepted: Sequence[str] = ()
    ) -> None:
        self.experiment = experiment
        self.run = run
        self.watcher = watcher
        self.position = Position()
        processes = experiment.processes
        state = processes.broadcast(checkpoint.load_newest(run, previous=previous) if processes.first else None)
        if state is not None:
            self.position = self._position(state, accepted)
        if self.position.epoch > experiment.epochs:
            raise DataError(f"`{run.path}` has done {self.position.epoch} epochs already, and the profile now asks for {experiment.epochs}")
        # After the last step of the last epoch there may be no more of it to train.
        self.step = Step(experiment, experiment.part(min(self.position.epoch, experiment.epochs - 1)))
        self._tally: Tally | None = None
        if state is not None:
            self._restore(state)
            if processes.first:
                self._settle_best()
        self._pauses = Pauses(processes, experiment.settings.save_every)
        self._clock = time.perf_counter()

    @property
    def evaluated(self) -> nn.Module:
        """The model that is evaluated and deployed: the moving average if there is one."""
        return self.step.ema.model if self.step.ema is not None else self.experiment.model

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
        self._clock = time.perf_counter()
        with self._pauses, reproducible(self.experiment):
            while self.position.epoch < self.experiment.epochs:
                self._epoch()
        if self.experiment.processes.first and not self.run.best.is_file():  # fewer epochs than before were accepted
            self._save_student(self.run.best, self.experiment.main.epochs)
        return self.position

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
        if part.phase is None and (last or record["epoch"] % experiment.settings.evaluate_every == 0):
            record |= self._evaluate()
        self._tick()
        record |= {"seconds": round(position.epoch_seconds, 3)}
        self._finish_epoch(record, last)
        self.watcher.epoch(record)
        if number := self._pauses.stopping():
            raise self._stopped(number)

    def _train_epoch(self, part: Part) -> dict[str, Any]:
        experiment, position = self.experiment, self.position
        within = position.epoch - part.begin
        tally, self._tally = self._tally or Tally(experiment.device), None
        before = tally.images
        steps = experiment.loader.steps
        started = shown = time.perf_counter()
        for done, batch in enumerate(experiment.loader.epoch(position.epoch, position.step), start=position.step + 1):
            self.step(batch, within * steps + done - 1, tally)
            position.step = done
            pause = self._pauses.after_step()
            if pause.save or pause.stop:
                self.step.check()
                self._tick()
                self._save(tally)
            if pause.stop:
                raise self._stopped(pause.stop)
            now = time.perf_counter()
            if now - shown >= 1 and done < steps:
                shown = now
                rate = (tally.images - before) * experiment.processes.count / (now - started)
                self.watcher.batch(part, within + 1, done, steps, tally.read(), rate, self._lr)
        reading = tally.read(experiment.processes)
        seconds = time.perf_counter() - started
        self._tally = tally  # an evaluation that is interrupted is done again
        images = (tally.images - before) * experiment.processes.count
        return {
            "phase": part.name,
            "epoch": within + 1,
            "lr": self._lr,
            "total": reading.total,
            "terms": reading.terms,
            **({} if reading.top1 is None else {"train_top1": reading.top1}),
            "methods": {name: float(value) for name, value in experiment.objective.metrics()},
            "images_per_second": round(images / seconds, 1),
        }

    @property
    def _lr(self) -> float:
        """The rate of the last step; after a resume behind the last step of an epoch it is computed anew."""
        step, position = self.step, self.position
        within = position.epoch - step.part.begin
        rate = step.part.schedule((within * self.experiment.loader.steps + position.step - 1) / step.total_steps)
        return rate * float(step.optimizer.param_groups[0].get("lr_scale", 1.0))

    def _evaluate(self) -> dict[str, Any]:
        """On the validation split; without one on the test split, for the record only."""
        splits = self.experiment.splits
        images, name = (splits.val, "val") if splits.val is not None else (splits.test, "test")
        if images is None:
            return {}
        return {name: self.evaluate(self.evaluated, name, interruptible=True).metrics.as_dict()}

    def evaluate(self, model: nn.Module, split: str, *, interruptible: bool = False) -> Evaluation:
        """Evaluates a model on `val` or `test`."""
        experiment = self.experiment
        experiment.processes.broadcast_tensors(list(model.buffers()))  # statistics of batch normalisation are those of the first process
        loader = experiment.evaluation(getattr(experiment.splits, split))
        try:
            with explained_shortage(experiment):
                batches = self._until_stopped(loader) if interruptible else loader
                return evaluate(model, batches, experiment.splits.num_classes, experiment.processes)
        finally:
            loader.close()

    def _until_stopped(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; a signal ends a long evaluation, which the next run begins anew. Several processes finish it together."""
        for batch in batches:
            if self._pauses.stopped_alone:
                self._tick()
                assert self._tally is not None
                self._save(self._tally)
                raise self._stopped(self._pauses.stopped_alone)
            yield batch

    def _finish_epoch(self, record: dict[str, Any], last: bool) -> None:
        position, first = self.position, self.experiment.processes.first
        position.epoch += 1
        position.step, position.epoch_seconds, self._tally = 0, 0.0, None
        top1 = record["val"]["top1"] if "val" in record else None
        within = record["epoch"]
        # A tie goes to the later epoch, which has seen more; without a validation split the last epoch is the best by definition.
        if (top1 is not None and top1 >= position.best_top1) or (last and not self.chooses):
            position.best_epoch, position.best_top1 = within, -1.0 if top1 is None else top1
            if first:
                self._save_student(self.run.next_best, within)
        keep_every = self.experiment.settings.keep_every
        if first and keep_every and record["phase"] == MAIN and within % keep_every == 0:
            self._save_student(self.run.kept(within), within)
        if first:
            self.run.append(record)
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

    def _tick(self) -> None:
        """Adds the time since the last call."""
        now = time.perf_counter()
        self.position.seconds += now - self._clock
        self.position.epoch_seconds += now - self._clock
        self._clock = now

    def _stopped(self, number: int) -> StoppedError:
        position = self.position
        name = signal.Signals(number).name
        done = f"{position.epoch} epochs" + (f" and {position.step} of {self.experiment.loader.steps} steps" if position.step else "")
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
        checkpoint.save(self.run, path, {"student": self.evaluated.state_dict(), "epoch": epoch, "digest": self.experiment.digest})

    def _save(self, tally: Tally | None) -> None:
        """Writes the full checkpoint; `tally` is that of an epoch that is not finished."""
        tallies = None if tally is None else self.experiment.processes.all_gather(tally.state_dict())
        if self.experiment.processes.first:
            checkpoint.save_last(self.run, self._state(tallies))
        self.experiment.processes.broadcast(None)  # however long it takes; and what all say of it is true then
        self._pauses.saved()

    def _state(self, tallies: list[dict[str, Any]] | None) -> dict[str, Any]:
        step, experiment = self.step, self.experiment
        return {
            "digest": experiment.digest,
            "position": vars(self.position).copy(),
            "part": step.part.name,
            "steps": experiment.loader.steps,
            "epoch": max(0, self.position.epoch - experiment.main.begin),
            "tallies": tallies,
            "student": experiment.model.state_dict(),
            "methods": experiment.objective.methods.state_dict(),
            "optimizer": step.optimizer.state_dict(),
            "scaler": step.scaler.state_dict(),
            "ema": step.ema.state_dict() if step.ema is not None else None,
        }

    def _position(self, state: dict[str, Any], accepted: Sequence[str]) -> Position:
        if state["digest"] not in (self.experiment.digest, *accepted):
            raise DataError(f"the checkpoint in `{self.run.path}` belongs to another profile", hint="start anew with `--fresh`")
        position = Position(**state["position"])
        if state["steps"] != self.experiment.loader.steps:  # batches were accepted that are cut otherwise: the epoch begins anew
            position.step, state["tallies"] = 0, None
        return position

    def _settle_best(self) -> None:
        """Makes `best.pt` the epoch that the checkpoint knows as the best, whatever a crash or `previous` left."""
        position, run = self.position, self.run
        if run.next_best.is_file():
            found = checkpoint.load(run.next_best)["epoch"] if not run.manifest.problem(run.named(run.next_best)) else 0
            if found and found == position.best_epoch:
                checkpoint.promote(run)
            else:
                run.next_best.unlink()
        kept = checkpoint.load(run.best)["epoch"] if run.best.is_file() and not run.manifest.problem(run.named(run.best)) else None
        if kept is not None and kept != position.best_epoch:  # a later epoch, which comes again
            position.best_epoch, position.best_top1 = 0, -1.0

    def _restore(self, state: dict[str, Any]) -> None:
        step, experiment = self.step, self.experiment
        try:
            experiment.model.load_state_dict(state["student"])
            experiment.objective.methods.load_state_dict(state["methods"])
            if state.get("part", MAIN) == step.part.name:  # at its end the next part begins with an optimizer of its own
                _load_state(step.optimizer, state["optimizer"], changed=state["digest"] != experiment.digest)
                step.scaler.load_state_dict(state["scaler"])
            if step.ema is not None:
                if state["ema"] is None:
                    step.ema.restart(experiment.model)
                else:
                    step.ema.load_state_dict(state["ema"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise DataError(
                f"the checkpoint in `{self.run.path}` does not fit the run as it is now: {str(error).splitlines()[0]}",
                hint="`--fresh` starts anew",
            ) from error
        if state["tallies"] is not None:
            self._tally = Tally(experiment.device)
            for tally in state["tallies"][experiment.processes.rank :: experiment.processes.count]:
                self._tally.absorb(tally)


def _load_state(optimizer: Optimizer, state: dict[str, Any], *, changed: bool) -> None:
    """Takes over momenta and the like; after an accepted change of the profile its hyperparameters count, and not those of before."""
    now = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    if changed:
        for group, values in zip(optimizer.param_groups, now, strict=True):
            group.update(values)


def restore_student(model: nn.Module, path: Path) -> int:
    """Loads the weights that were evaluated at a checkpoint; returns its epoch.

    Raises:
        DataError: it is damaged, or does not fit the model.
    """
    state = checkpoint.load(path)
    average = state.get("ema")
    try:
        model.load_state_dict(state["student"] if average is None else average["model"])
        return int(state["epoch"] if "epoch" in state else state["position"]["epoch"])
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"the checkpoint `{path}` does not fit the run as it is now: {str(error).partition(chr(10))[0]}") from error


__all__ = ["Loop", "Position", "Watcher", "restore_student"]
