"""One optimizer step, without a Python branch on data and without a wait for the device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from distillctl.api.method import Batch, Features, Progress
from distillctl.api.optimizer import SeparateGradients
from distillctl.data.hashing import STEP, mix
from distillctl.engine.data_parallel import Exchange, draws_by_itself
from distillctl.engine.ema import ModelEMA
from distillctl.engine.experiment import AUTOCAST, Experiment, Part
from distillctl.engine.finite_check import Guard
from distillctl.engine.gradient_pair import GradientPair
from distillctl.engine.memory import explained_shortage
from distillctl.engine.meter import Tally
from distillctl.engine.objective import Losses, TeacherFeatures
from distillctl.errors import RunError
from distillctl.models.features import batch_statistics

_SMALLEST_SCALE = 2.0**-16  # a scaler begins at 2^16 and halves


class Step:
    """The step of one part of an experiment, called once a batch. Making it makes the models ready for that part.

    Every step seeds torch's global generators from (seed, step): whatever a method or a dropout draws is the same after a
    resume, on any machine with the same torch.
    """

    def __init__(self, experiment: Experiment, part: Part | None = None) -> None:
        self.experiment = experiment
        self.part = experiment.main if part is None else part
        settings, device = experiment.settings, experiment.device
        self.objective = experiment.objective
        self.objective.enter(self.part.method, self.part.phase)
        self.optimizer = experiment.build_optimizer(self.objective.parameter_groups())
        self.pair = GradientPair(self.optimizer) if isinstance(self.optimizer, SeparateGradients) else None
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
        averages = settings.ema > 0 and self.part.phase is None
        self.ema = ModelEMA(experiment.model, settings.ema, settings.ema_ramp) if averages else None
        self.progress = Progress(torch.zeros((), device=device), torch.zeros((), device=device))
        self.total_steps = self.part.epochs * experiment.loader.steps
        self._before = self.part.begin * experiment.loader.steps
        self._norms = self.objective.teacher_norms
        self.exchange = Exchange(self.objective, experiment.processes, compiled=settings.compiled, pair=self.pair)
        trained = {id(p) for p in self.parameters}
        named = [(name, p) for name, p in self.objective.named_parameters() if id(p) in trained]
        self.guard = Guard(named, device, watch_gradients=not self.scaler.is_enabled())
        # The same draws in all processes give every image what it would draw in one; dropout has to differ.
        self._draws = experiment.processes.rank if draws_by_itself(self.objective) else 0
        teacher = experiment.teacher
        self._teacher = torch.compile(teacher, dynamic=False) if settings.compiled and teacher is not None else teacher

    def autocast(self) -> AbstractContextManager[object]:
        """The run's precision for forward passes."""
        dtype = AUTOCAST.get(self.experiment.settings.precision)
        return nullcontext() if dtype is None else torch.autocast(self.experiment.device.type, dtype=dtype)

    def begin(self, step: int) -> None:
        """Sets generators, progress and learning rates for the step of this part, counted from 0."""
        experiment = self.experiment
        own = (self._draws,) if self._draws else ()
        torch.manual_seed(mix(experiment.settings.seed, STEP, self._before + step, *own))
        self.progress.epoch.fill_(step // experiment.loader.steps + 1)
        fraction = step / self.total_steps
        self.progress.fraction.fill_(fraction)
        rate = self.part.schedule(fraction)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)

    def teach(self, batch: Batch) -> TeacherFeatures:
        """What the teacher sees in the batch, with every kind of normalisation that somebody wants."""
        return {norm: self._teach(batch.images, norm) for norm in self._norms}

    def _teach(self, images: Tensor, norm: str) -> Features:
        teacher = self.experiment.teacher
        assert teacher is not None
        assert self._teacher is not None
        with torch.no_grad(), self.autocast(), batch_statistics(teacher) if norm == "batch" else nullcontext():
            features: Features = self._teacher(images)
        return features

    def __call__(self, batch: Batch, step: int, tally: Tally) -> None:
        """Trains on one batch and adds its terms to the tally; `step` counts within the part, from 0.

        Raises:
            RunError: a number was not finite; the weights are as before the step.
            MachineError: memory ran out.
        """
        with explained_shortage(self.experiment, self.optimizer):
            self.begin(step)
            pieces = self._pieces(batch)
            for number, piece in enumerate(pieces, start=1):
                with self.exchange.held_back(number < len(pieces)):
                    losses = self.learn(step, piece)
                total = losses.task.detach() + losses.distillation.detach()
                tally.add(piece.labels, losses.logits, total, losses.terms)
            self.exchange.finish()
            self.guard.gradients(step, batch, () if self.pair is None else self.pair.second)
            self.update()
            if self.ema is not None:
                self.guard.average(step, batch, self.ema.model)

    def _pieces(self, batch: Batch) -> list[Batch]:
        """The parts of this process's rows that are computed one after the other."""
        whole = batch.total or len(batch.labels)
        pieces = self.experiment.loader.share.pieces(whole)
        result, at = [], 0
        for piece in pieces:
            rows = slice(at, at + piece.end - piece.start)
            at = rows.stop
            result.append(Batch(batch.images[rows], batch.labels[rows], batch.index[rows], piece.before, piece.total, whole))
        return result

    def learn(self, step: int, piece: Batch) -> Losses:
        """Forward and backward of a part of a batch."""
        teacher = self.teach(piece)
        with self.autocast():
            losses: Losses = self.exchange.forward(piece, teacher, self.progress)
        self.guard.losses(step, piece, teacher, losses)
        # Gradients are averaged over the processes, whose shares may differ by an image, and summed over the parts.
        share = self.experiment.processes.count * piece.share
        self.backward(losses.task * share, losses.distillation * share)
        return losses

    def backward(self, task: Tensor, distillation: Tensor) -> None:
        """The gradients of the sum, or of both."""
        if self.pair is not None:
            self.pair.backward(self.scaler.scale(task), self.scaler.scale(distillation))
        else:
            self.scaler.scale(task + distillation).backward()

    def check(self) -> None:
        """Waits for what the guard has still to read; called before anything is evaluated or saved.

        Raises:
            RunError: a number was not finite.
        """
        self.guard.flush()
        if self.scaler.is_enabled() and self.scaler.get_scale() < _SMALLEST_SCALE:
            raise RunError(
                "gradients in half precision are not finite, however small they are scaled", hint='use `train.precision = "bf16"` or "fp32"'
            )

    def update(self) -> None:
        """From gradients to new weights, and all that follows from them."""
        experiment = self.experiment
        stepper = self.optimizer if self.pair is None else self.pair
        if experiment.settings.clip_grad_norm > 0:
            self.scaler.unscale_(stepper)  # type: ignore[arg-type]
            if self.pair is not None:
                self.pair.clip(experiment.settings.clip_grad_norm)
            else:
                torch.nn.utils.clip_grad_norm_(self.parameters, experiment.settings.clip_grad_norm)
        watched = self.ema is not None and self.scaler.is_enabled()  # reading the scale waits for the device
        scale = self.scaler.get_scale() if watched else 1.0
        self.scaler.step(stepper)  # type: ignore[arg-type]
        self.scaler.update()
        stepper.zero_grad()
        with torch.no_grad():
            self.objective.after_step()
        skipped = watched and self.scaler.get_scale() < scale
        if self.ema is not None and not skipped:
            self.ema.update(experiment.model)
