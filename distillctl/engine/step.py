"""One optimizer step, without a Python branch on data and without a wait for the device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from distillctl.api.method import Batch, Features, Progress
from distillctl.data.hashing import STEP, mix
from distillctl.engine.ema import ModelEMA
from distillctl.engine.experiment import AUTOCAST, Experiment
from distillctl.engine.tally import Tally


class Step:
    """The step of an experiment, called once a batch.

    Every step seeds torch's global generators from (seed, step): whatever a method or a dropout draws is the same after a
    resume, on any machine with the same torch.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        settings, device = experiment.settings, experiment.device
        self.objective = experiment.objective
        self.parameters = [p for group in experiment.optimizer.param_groups for p in group["params"]]
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
        self.ema = ModelEMA(experiment.model, settings.ema, settings.ema_ramp) if settings.ema > 0 else None
        self.progress = Progress(torch.zeros((), device=device), torch.zeros((), device=device))
        self._forward = torch.compile(self.objective, dynamic=False) if settings.compiled else self.objective
        teacher = experiment.teacher
        self._teacher = torch.compile(teacher, dynamic=False) if settings.compiled and teacher is not None else teacher

    def autocast(self) -> AbstractContextManager[object]:
        """The run's precision for forward passes."""
        dtype = AUTOCAST.get(self.experiment.settings.precision)
        return nullcontext() if dtype is None else torch.autocast(self.experiment.device.type, dtype=dtype)

    def begin(self, step: int) -> None:
        """Sets generators, progress and learning rates for the 0-based global step."""
        experiment = self.experiment
        torch.manual_seed(mix(experiment.settings.seed, STEP, step))
        self.progress.epoch.fill_(step // experiment.loader.steps + 1)
        fraction = step / experiment.total_steps
        self.progress.fraction.fill_(fraction)
        rate = experiment.schedule(fraction)
        for group in experiment.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)

    def teach(self, batch: Batch) -> Features:
        """What the teacher sees in the batch; empty without a teacher."""
        if self._teacher is None:
            return {}
        with torch.no_grad(), self.autocast():
            features: Features = self._teacher(batch.images)
        return features

    def __call__(self, batch: Batch, step: int, tally: Tally) -> None:
        """Trains on one batch and adds its terms to the tally."""
        self.begin(step)
        teacher = self.teach(batch)
        with self.autocast():
            total, terms, logits = self._forward(batch, teacher, self.progress)
        self.scaler.scale(total).backward()
        self.update()
        tally.add(step, batch.labels, logits.detach(), total, terms)

    def update(self) -> None:
        """From gradients to new weights, and all that follows from them."""
        experiment = self.experiment
        if experiment.settings.clip_grad_norm > 0:
            self.scaler.unscale_(experiment.optimizer)
            torch.nn.utils.clip_grad_norm_(self.parameters, experiment.settings.clip_grad_norm)
        scale = self.scaler.get_scale() if self.scaler.is_enabled() else 1.0
        self.scaler.step(experiment.optimizer)
        self.scaler.update()
        experiment.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.objective.after_step()
        skipped = self.scaler.is_enabled() and self.scaler.get_scale() < scale
        if self.ema is not None and not skipped:
            self.ema.update(experiment.model)
