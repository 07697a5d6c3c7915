"""One student with what trains it: objective, optimizer, moving average, scaler, checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from distillctl.api.method import Batch, Progress
from distillctl.api.optimizer import SeparateGradients
from distillctl.api.returned import EXPECTED
from distillctl.engine.data_parallel import DataParallel, draws_by_itself
from distillctl.engine.ema import ModelEMA
from distillctl.engine.experiment import Experiment, Part
from distillctl.engine.finite_check import FiniteCheck
from distillctl.engine.gradient_pair import GradientPair
from distillctl.engine.meter import TrainingMeter
from distillctl.engine.objective import Looks, Losses, Objective
from distillctl.engine.precision import autocast
from distillctl.errors import PluginError, RunError

_SMALLEST_SCALE = 2.0**-16  # a scaler begins at 2^16 and halves


class Learner:
    """A student in one part of a run. Making it makes its modules ready for that part.

    find: goes through a step again, for the names of gradients that are not finite (`FiniteCheck`).

    meter: of the epoch that is trained.
    """

    def __init__(
        self, experiment: Experiment, objective: Objective, part: Part, find: Callable[[int, Batch], list[str]] = lambda *_: []
    ) -> None:
        settings, device = experiment.settings, experiment.device
        self.objective = objective
        self.objective.enter(part.method, part.phase)
        self.optimizer = experiment.build_optimizer(objective.parameter_groups())
        self.pair = GradientPair(self.optimizer) if isinstance(self.optimizer, SeparateGradients) else None
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
        averages = settings.ema > 0 and part.phase is None
        self.ema = ModelEMA(self.model, settings.ema, settings.ema_ramp) if averages else None
        self.data_parallel = DataParallel(objective, experiment.processes, compiled=settings.compiled, pair=self.pair)
        trained = {id(p) for p in self.parameters}
        named = [(name, p) for name, p in objective.named_parameters() if id(p) in trained]
        self.finite_check = FiniteCheck(
            named,
            device,
            watch_gradients=not self.scaler.is_enabled(),
            teachers=experiment.teacher_called,
            clipped=settings.clip_grad_norm > 0,
            precision=settings.precision,
            find=find,
        )
        self._tell_optimizer()
        self.draws = draws_by_itself(objective)
        self.meter = TrainingMeter(device)
        self._settings, self._device, self._processes = settings, device, experiment.processes
        self._first = True
        self._skipped = False
        self._rates: list[float] | None = None

    def _tell_optimizer(self) -> None:
        """A fused optimizer leaves out the update of a step whose numbers are not finite, without anybody waiting for the device."""
        if self.finite_check.bad is not None and self.leaves_out:
            self.optimizer.grad_scale = None  # type: ignore[attr-defined]
            self.optimizer.found_inf = self.finite_check.bad  # type: ignore[attr-defined]

    @property
    def leaves_out(self) -> bool:
        """Whether the optimizer can leave out an update by itself, as those of torch do in their fused form."""
        return self.pair is None and bool(getattr(self.optimizer, "_step_supports_amp_scaling", False))

    @property
    def model(self) -> nn.Module:
        """The student itself."""
        return self.objective.student.model

    @property
    def evaluated(self) -> nn.Module:
        """The model that is evaluated and deployed: the moving average if there is one."""
        return self.model if self.ema is None else self.ema.model

    @property
    def lr_scale(self) -> float:
        """By what the first group scales the schedule's rate."""
        return float(self.optimizer.param_groups[0].get("lr_scale", 1.0))

    def set_rate(self, rate: float) -> None:
        """Sets the schedule's rate, which groups may scale."""
        rates = [rate * group.get("lr_scale", 1.0) for group in self.optimizer.param_groups]
        if rates == self._rates:
            return
        self._rates = rates
        for group, own in zip(self.optimizer.param_groups, rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(own)
            else:
                group["lr"] = own

    def rates_on_device(self) -> None:
        """Keeps the learning rates where a captured update reads them."""
        self._rates = None
        for group in self.optimizer.param_groups:
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=self._device)
            if "capturable" in group:
                group["capturable"] = True

    def learn(self, step: int, piece: Batch, looks: Looks, progress: Progress, *, last: bool) -> None:
        """Forward and backward of a part of a batch, and its terms for the meter.

        last: whether it is the last part, whose backward ends with the gradients of all processes.

        Raises:
            RunError: a number was not finite, or nothing has a gradient.
            PluginError: what a method returned cannot be learnt from.
        """
        with nullcontext() if last else self.data_parallel.held_back():
            with autocast(self._device, self._settings.precision):
                losses: Losses = self.data_parallel.forward(piece, looks, progress)
            self.finite_check.losses(step, piece, looks, losses)
            if self._first:
                _check_constant(losses)
            # Gradients are averaged over the processes, whose shares may differ by an image, and summed over the parts.
            share = self._processes.count * piece.share
            self._backward(losses.task * share, losses.distillation * share)
        total = losses.task.detach() + losses.distillation.detach()
        self.meter.add(piece.count, total, losses.terms, losses.figures)

    def _backward(self, task: Tensor, distillation: Tensor) -> None:
        """The gradients of the sum, or of both."""
        if not (task.requires_grad or distillation.requires_grad):
            raise RunError("nothing in this step has a gradient: every term is a constant", hint="is `task_weight` 0 on purpose?")
        if self.pair is not None:
            self.pair.backward(self.scaler.scale(task), self.scaler.scale(distillation))
        else:
            self.scaler.scale(task + distillation).backward()

    def forget_gradients(self) -> None:
        """Of a step that is not taken."""
        (self.optimizer if self.pair is None else self.pair).zero_grad()

    def not_finite(self) -> list[str]:
        """Names of the parameters whose gradients, as they are now, are not finite."""
        second = () if self.pair is None else self.pair.second
        return self.finite_check.not_finite(second)

    def update(self, step: int, batch: Batch) -> None:
        """From gradients to new weights.

        Raises:
            RunError: a number was not finite; the weights are as before the step.
        """
        self.data_parallel.finish()
        self.finite_check.gradients(step, batch, () if self.pair is None else self.pair.second)
        if not self.leaves_out:
            self.finite_check.wait(step, batch)
        self.apply_gradients()

    def follow(self, step: int, batch: Batch) -> None:
        """What follows from new weights.

        Raises:
            RunError: a number was not finite.
        """
        if self.ema is not None:
            if not self._skipped:
                self.ema.update()
            self.finite_check.average(step, batch, self.ema.tensors)
        self.finite_check.end(step, batch)
        if self._first:
            dict(self.objective.metrics())  # which checks them: an epoch's end would be late
            self._first = False

    def apply_gradients(self) -> None:
        """The optimizer's step, and what methods do after it."""
        clip = self._settings.clip_grad_norm
        stepper = self.optimizer if self.pair is None else self.pair
        if clip > 0:
            self.scaler.unscale_(stepper)  # type: ignore[arg-type]
            if self.pair is not None:
                self.pair.clip(clip)
            else:
                torch.nn.utils.clip_grad_norm_(self.parameters, clip)
        watched = self.ema is not None and self.scaler.is_enabled()  # reading the scale waits for the device
        scale = self.scaler.get_scale() if watched else 1.0
        self.scaler.step(stepper)  # type: ignore[arg-type]
        self.scaler.update()
        stepper.zero_grad()
        with torch.no_grad():
            self.objective.after_step()
        self._skipped = watched and self.scaler.get_scale() < scale

    def check(self) -> None:
        """Waits for what is still to be read of the numbers of past steps; called before anything is evaluated or saved.

        Raises:
            RunError: a number was not finite.
        """
        self.finite_check.flush()
        if self.scaler.is_enabled() and self.scaler.get_scale() < _SMALLEST_SCALE:
            raise RunError(
                "gradients in half precision are not finite, however small they are scaled", hint='use `train.precision = "bf16"` or "fp32"'
            )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {
            "student": self.model.state_dict(),
            "methods": self.objective.methods.state_dict(),
            "optimizer": _with_numbers(self.optimizer.state_dict()),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
        }

    def load_state_dict(self, state: Mapping[str, Any], *, same_part: bool, same_profile: bool) -> None:
        """Takes over a state.

        same_part: whether it is of this part of the run; otherwise the part begins with an optimizer of its own.
        same_profile: otherwise the optimizer's hyperparameters are those of now.

        Raises:
            RuntimeError, ValueError, KeyError: it does not fit.
        """
        self.model.load_state_dict(state["student"])
        self.objective.methods.load_state_dict(state["methods"])
        if same_part:
            on_device = [isinstance(group["lr"], Tensor) for group in self.optimizer.param_groups]
            _load_optimizer(self.optimizer, state["optimizer"], same_profile=same_profile)
            self._rates = None
            if any(on_device):
                self.rates_on_device()
            self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            if state["ema"] is None:
                self.ema.restart()
            else:
                self.ema.load_state_dict(state["ema"])


def _check_constant(losses: Losses) -> None:
    """Refuses a term from which nothing can be learnt. A zero may be one: no row of this batch may be meant by it."""
    for name in losses.constant:
        if value := float(losses.terms[name]):
            raise PluginError(
                f"the term `{name}` is {value:g} without a gradient, so that nothing is learnt from it, where {EXPECTED} is expected",
                hint="was it detached, taken out of the graph by `.item()`, computed under `no_grad`, or is it of a frozen stage?",
            )


_HOW = ("fused", "foreach", "capturable", "differentiable")
"""What an optimizer's groups say of the kernels that compute it, which are those of this device."""


def _with_numbers(state: dict[str, Any]) -> dict[str, Any]:
    """The state of an optimizer with its learning rates as numbers, wherever they were kept."""
    return {**state, "param_groups": [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]}


def _load_optimizer(optimizer: Optimizer, state: dict[str, Any], *, same_profile: bool) -> None:
    """Takes over momenta and the like; after an accepted change of the profile its hyperparameters count, and not those of before."""
    now = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    saved = state["param_groups"]
    if len(saved) == len(now):  # otherwise torch refuses it
        saved = [{key: _taken(key, value, here) for key, value in group.items()} for group, here in zip(saved, now, strict=True)]
    optimizer.load_state_dict({**state, "param_groups": saved})
    if not same_profile:
        for group, values in zip(optimizer.param_groups, now, strict=True):
            group.update(values)


def _taken(key: str, saved: Any, here: Mapping[str, Any]) -> Any:
    """A group's value in a state: how it is computed stays as it is here, and a tensor comes as a number where a number is here."""
    if key in _HOW and key in here:
        return here[key]
    return saved.item() if isinstance(saved, Tensor) and isinstance(here.get(key), float) else saved
