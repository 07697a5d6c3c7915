"""The one loop: for every epoch, for every batch, a step; then evaluate, record, save."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from distillctl.engine import checkpoint
from distillctl.engine.evaluate import Evaluation, evaluate
from distillctl.engine.experiment import MAIN, Experiment, Part
from distillctl.engine.step import Step
from distillctl.engine.tally import Reading, Tally
from distillctl.errors import DataError
from distillctl.runs import RunDirectory


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
    best_epoch: of the main part, counted from 1.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_top1: float = -1.0
    seconds: float = 0.0


class Loop:
    """Trains an experiment in a run directory, from its checkpoint if there is one."""

    def __init__(self, experiment: Experiment, run: RunDirectory, watcher: Watcher) -> None:
        self.experiment = experiment
        self.run = run
        self.watcher = watcher
        self.position = Position()
        state = checkpoint.load(run.last) if run.last.exists() else None
        if state is not None:
            self.position = self._position(state)
        self.step = Step(experiment, experiment.part(self.position.epoch))
        if state is not None:
            self._restore(state)

    @property
    def evaluated(self) -> nn.Module:
        """The model that is evaluated and deployed: the moving average if there is one."""
        return self.step.ema.model if self.step.ema is not None else self.experiment.model

    @property
    def chooses(self) -> bool:
        """Whether a validation split chooses the best epoch; without one it is the last."""
        return self.experiment.splits.val is not None

    def train(self) -> Position:
        """Runs what is left of the epochs."""
        experiment = self.experiment
        self.run.keep_records(self.position.epoch)
        for epoch in range(self.position.epoch, experiment.epochs):
            started = time.perf_counter()
            part = experiment.part(epoch)
            if part is not self.step.part:
                self.step = Step(experiment, part)
            record = self._train_epoch(epoch)
            last = epoch + 1 == experiment.epochs
            if part.phase is None and (last or record["epoch"] % experiment.settings.evaluate_every == 0):
                record |= self._evaluate()
            seconds = time.perf_counter() - started
            record |= {"seconds": round(seconds, 3)}
            self._save(epoch + 1, record, seconds, last)
            self.watcher.epoch(record)
        return self.position

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        experiment, part = self.experiment, self.step.part
        within = epoch - part.begin
        tally = Tally(experiment.device)
        steps = experiment.loader.steps
        started = shown = time.perf_counter()
        lr = 0.0
        for done, batch in enumerate(experiment.loader.epoch(epoch), start=1):
            self.step(batch, within * steps + done - 1, tally)
            lr = self.step.optimizer.param_groups[0]["lr"]
            now = time.perf_counter()
            if now - shown >= 1 and done < steps:
                shown = now
                self.watcher.batch(part, within + 1, done, steps, tally.read(), tally.images / (now - started), lr)
        reading = tally.read()
        seconds = time.perf_counter() - started
        return {
            "phase": part.name,
            "epoch": within + 1,
            "lr": lr,
            "total": reading.total,
            "terms": reading.terms,
            **({} if reading.top1 is None else {"train_top1": reading.top1}),
            "methods": {name: float(value) for name, value in experiment.objective.metrics()},
            "images_per_second": round(reading.images / seconds, 1),
        }

    def _evaluate(self) -> dict[str, Any]:
        """On the validation split; without one on the test split, for the record only."""
        splits = self.experiment.splits
        images, name = (splits.val, "val") if splits.val is not None else (splits.test, "test")
        if images is None:
            return {}
        return {name: self.evaluate(self.evaluated, name).metrics.as_dict()}

    def evaluate(self, model: nn.Module, split: str) -> Evaluation:
        """Evaluates a model on `val` or `test`."""
        images = getattr(self.experiment.splits, split)
        loader = self.experiment.evaluation(images)
        try:
            return evaluate(model, loader, self.experiment.splits.num_classes)
        finally:
            loader.close()

    def _save(self, epoch: int, record: dict[str, Any], seconds: float, last: bool) -> None:
        position = self.position
        position.epoch = epoch
        position.seconds += seconds
        top1 = record["val"]["top1"] if "val" in record else None
        within = record["epoch"]
        # A tie goes to the later epoch, which has seen more; without a validation split the last epoch is the best by definition.
        if (top1 is not None and top1 >= position.best_top1) or (last and not self.chooses):
            position.best_epoch, position.best_top1 = within, -1.0 if top1 is None else top1
            self._save_student(self.run.best, within)
        keep_every = self.experiment.settings.keep_every
        if keep_every and record["phase"] == MAIN and within % keep_every == 0:
            self._save_student(self.run.kept(within), within)
        self.run.append(record)
        # The full checkpoint comes last: whatever was written before it is written again, alike, after a crash.
        checkpoint.save(self.run.last, self._state())
        self.run.update(
            epoch=epoch,
            best_epoch=position.best_epoch,
            seconds=round(position.seconds, 3),
            images_per_second=record["images_per_second"],
        )

    def _save_student(self, path: Path, epoch: int) -> None:
        checkpoint.save(path, {"student": self.evaluated.state_dict(), "epoch": epoch, "digest": self.experiment.digest})

    def _state(self) -> dict[str, Any]:
        step, experiment = self.step, self.experiment
        return {
            "digest": experiment.digest,
            "position": vars(self.position).copy(),
            "part": step.part.name,
            "epoch": max(0, self.position.epoch - experiment.main.begin),
            "student": experiment.model.state_dict(),
            "methods": experiment.objective.methods.state_dict(),
            "optimizer": step.optimizer.state_dict(),
            "scaler": step.scaler.state_dict(),
            "ema": step.ema.state_dict() if step.ema is not None else None,
        }

    def _position(self, state: dict[str, Any]) -> Position:
        if state["digest"] != self.experiment.digest:
            raise DataError(f"the checkpoint in `{self.run.path}` belongs to another profile", hint="start anew with `--fresh`")
        return Position(**state["position"])

    def _restore(self, state: dict[str, Any]) -> None:
        step, experiment = self.step, self.experiment
        experiment.model.load_state_dict(state["student"])
        experiment.objective.methods.load_state_dict(state["methods"])
        if state.get("part", MAIN) == step.part.name:  # at its end the next part begins with an optimizer of its own
            step.optimizer.load_state_dict(state["optimizer"])
            step.scaler.load_state_dict(state["scaler"])
        if step.ema is not None:
            if state["ema"] is None:
                step.ema.restart(experiment.model)
            else:
                step.ema.load_state_dict(state["ema"])


def restore_student(model: nn.Module, path: Path) -> int:
    """Loads the weights that were evaluated at a checkpoint; returns its epoch."""
    state = checkpoint.load(path)
    average = state.get("ema")
    model.load_state_dict(state["student"] if average is None else average["model"])
    return int(state["epoch"] if "epoch" in state else state["position"]["epoch"])


__all__ = ["Loop", "Position", "Watcher", "restore_student"]
