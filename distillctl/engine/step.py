"""One optimizer step, without a Python branch on data and without a wait for the device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from distillctl.api.method import Batch, Features, Progress
from distillctl.api.optimizer import SeparateGradients
from distillctl.data.hashing import STEP, mix
from distillctl.engine.ema import ModelEMA
from distillctl.engine.experiment import AUTOCAST, Experiment, Part
from distillctl.engine.objective import TeacherFeatures
from distillctl.engine.separate import GradientPair
from distillctl.engine.tally import Tally
from distillctl.features import batch_statistics


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
        self._forward = torch.compile(self.objective, dynamic=False) if settings.compiled else self.objective
        teacher = experiment.teacher
        self._teacher = torch.compile(teacher, dynamic=False) if settings.compiled and teacher is not None else teacher

    def autocast(self) -> AbstractContextManager[object]:
        """The run's precision for forward passes."""
        dtype = AUTOCAST.get(self.experiment.settings.precision)
        return nullcontext() if dtype is None else torch.autocast(self.experiment.device.type, dtype=dtype)

    def begin(self, step: int) -> None:
        """Sets generators, progress and learning rates for the step of this part, counted from 0."""
        experiment = self.experiment
        torch.manual_seed(mix(experiment.settings.seed, STEP, self._before + step))
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
        """Trains on one batch and adds its terms to the tally; `step` counts within the part, from 0."""
        self.begin(step)
        teacher = self.teach(batch)
        with self.autocast():
            losses = self._forward(batch, teacher, self.progress)
        self.backward(losses.task, losses.distillation)
        self.update()
        tally.add(step, batch.labels, losses.logits, losses.task.detach() + losses.distillation.detach(), losses.terms)

    def backward(self, task: Tensor, distillation: Tensor) -> None:
        """The gradients of the sum, or of both."""
        if self.pair is not None:
            self.pair.backward(self.scaler.scale(task), self.scaler.scale(distillation))
        else:
            self.scaler.scale(task + distillation).backward()

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
