"""`ctkd`: the temperature of another method is learnt against the student, with growing strength.

    τ = t_start + t_end · σ(R(θ)),    L = L_inner at temperature τ

θ: `theta`, one number for all samples (`form = "global"`), or MLP(z_t, z_s), one for each sample (`form = "instance"`); 1 at the
start (τ = 15.62 with the defaults). R is a gradient reversal: R(θ) = θ going forward, and going backward the gradient is multiplied by

    λ(e) = −½ · (1 − cos(π · min(e / loops, 1)))        in epoch e, counted from 1: `progress.epoch`

which falls from 0 to −1. So the student descends on the loss while θ climbs it: an ever harder temperature.
Li, Li, Yang, Zhao, Song, Luo, Li, Yang, AAAI 2023, arXiv 2211.16231.

Where we differ: the parameters of θ have their own group without weight decay. In the authors' code the decay of the network pulls θ
to 0, that is τ to the middle of its range, whatever the loss says; `weight_decay = 5e-4` gives that back. The MLP sees the logits
without a way back for the gradient, so that the student descends on the inner method's loss and on nothing else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from distillctl import Batch, Features, Method, Progress, RunError, Setup, TemperatureMethod, Wrapper, gather_rows
from distillctl_ctkd.modules import Predictor
from distillctl_ctkd.options import CTKDOptions

START = 1.0
"""θ before the first step."""


def reversal_strength(epoch: Tensor, loops: float) -> Tensor:
    """λ(e) in [−1, 0] for a 0-dim `epoch`, counted from 1."""
    return -0.5 * (1 - torch.cos(torch.pi * (epoch / loops).clamp(max=1)))


def scale_gradient(value: Tensor, factor: Tensor) -> Tensor:
    """`value` itself going forward; going backward its gradient times the 0-dim `factor`."""
    constant = value.detach()
    return constant + factor.detach() * (value - constant)


class CTKD(Wrapper):
    """The inner method's terms, under their names, at the learnt temperature; `metrics` has `temperature`.

    Reduction as the inner method's. The student's gradient is that of the inner method at the same temperature. With one temperature
    for each sample, the inner method gets it as (B, 1), and `metrics` has its mean over the last training batch, of all processes.

    Raises:
        RunError: the inner method has no temperature.
    """

    mean_temperature: Tensor

    def __init__(self, options: CTKDOptions, setup: Setup, inner: Method) -> None:
        super().__init__(options, setup, inner)
        if not isinstance(inner, TemperatureMethod):
            raise RunError(
                f"`ctkd` steers a temperature, but `{type(inner).__name__}` has none",
                hint="choose a method such as `kd` or `dkd` in [method.inner]",
            )
        self.t_start = options.t_start
        self.t_end = options.t_end
        self.loops = options.loops
        if options.loops > setup.epochs:
            reached = -float(reversal_strength(torch.tensor(float(setup.epochs)), options.loops))
            text = f"`ctkd`: the reversed gradient grows over `loops` = {options.loops:g} epochs, and the run has {setup.epochs}"
            self.notes = (*inner.notes, f"{text}: it never passes {reached:.0%} of its strength")
        self.weight_decay = options.weight_decay
        self.instance = options.form == "instance"
        if self.instance:
            self.predictor = Predictor(setup.num_classes, options.hidden, START)
            # Written by every step and read at the end of an epoch, so a resumed run never reads an old one.
            self.register_buffer("mean_temperature", self._scaled(torch.tensor(START)), persistent=False)
        else:
            self.theta = nn.Parameter(torch.tensor(START))

    def temperature(self, epoch: Tensor, student: Features, teacher: Features) -> Tensor:
        """τ, 0-dim or (B, 1), with the reversed gradient of this epoch."""
        theta = self.predictor(teacher["logits"], student["logits"]) if self.instance else self.theta
        return self._scaled(scale_gradient(theta, reversal_strength(epoch, self.loops)))

    def _scaled(self, theta: Tensor) -> Tensor:
        return self.t_start + self.t_end * theta.sigmoid()

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> dict[str, Tensor]:
        """The terms of the inner method at τ."""
        temperature = self.temperature(progress.epoch, student, teacher)
        if self.instance and torch.is_grad_enabled():
            self.mean_temperature.copy_(gather_rows(batch, temperature.detach()).mean())
        return self.inner.terms(batch, student, teacher, progress, temperature=temperature)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parameters of θ in a group of their own, then the groups of the inner method."""
        own = list(self.predictor.parameters()) if self.instance else [self.theta]
        return [{"params": own, "weight_decay": self.weight_decay}, *self.inner.parameter_groups()]

    @torch.no_grad()
    def metrics(self) -> dict[str, Tensor]:
        """τ, and what the inner method has to say."""
        return {"temperature": self.mean_temperature.clone() if self.instance else self._scaled(self.theta), **self.inner.metrics()}
