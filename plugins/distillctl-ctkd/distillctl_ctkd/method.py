"""`ctkd`: the temperature of another method is learnt against the student, with growing strength.

    τ = t_start + t_end · σ(R(θ)),    L = L_inner at temperature τ

θ: `theta`, one number, 1 at the start (τ = 15.62 with the defaults). R is a gradient reversal: R(θ) = θ going forward,
and going backward the gradient is multiplied by

    λ(e) = −½ · (1 − cos(π · min(e / loops, 1)))        in epoch e, counted from 1: `progress.epoch`

which falls from 0 to −1. So the student descends on the loss while θ climbs it: an ever harder temperature.
Li, Li, Yang, Zhao, Song, Luo, Li, Yang, AAAI 2023, arXiv 2211.16231; the global form, one θ for all samples.

Where we differ: θ has its own parameter group without weight decay. In the authors' code the decay of the network pulls θ
to 0, that is τ to the middle of its range, whatever the loss says; `weight_decay = 5e-4` gives that back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from distillctl import Batch, Features, Method, Progress, RunError, Setup, TemperatureMethod, Wrapper
from distillctl_ctkd.options import CTKDOptions


def reversal_strength(epoch: Tensor, loops: float) -> Tensor:
    """λ(e) in [−1, 0] for a 0-dim `epoch`, counted from 1."""
    return -0.5 * (1 - torch.cos(torch.pi * (epoch / loops).clamp(max=1)))


def scale_gradient(value: Tensor, factor: Tensor) -> Tensor:
    """`value` itself going forward; going backward its gradient times `factor`. Both 0-dim."""
    constant = value.detach()
    return constant + factor.detach() * (value - constant)


class CTKD(Wrapper):
    """The inner method's terms, under their names, at the learnt temperature; `metrics` has `temperature`.

    Reduction as the inner method's. The student's gradient is that of the inner method at the same temperature.

    Raises:
        RunError: the inner method has no temperature.
    """

    def __init__(self, options: CTKDOptions, setup: Setup, inner: Method) -> None:
        super().__init__(options, setup, inner)
        if not isinstance(inner, TemperatureMethod):
            raise RunError(
                f"`ctkd` steers a temperature, but `{type(inner).__name__}` has none",
                hint="choose a method such as `kd` or `dkd` in [method.inner]",
            )
        self.compiles = inner.compiles  # type: ignore[misc]  # of this object: what holds for the inner method holds for the whole
        self.t_start = options.t_start
        self.t_end = options.t_end
        self.loops = options.loops
        self.weight_decay = options.weight_decay
        self.theta = nn.Parameter(torch.tensor(1.0))

    def temperature(self, epoch: Tensor) -> Tensor:
        """τ, 0-dim, with the reversed gradient of this epoch."""
        theta = scale_gradient(self.theta, reversal_strength(epoch, self.loops))
        return self.t_start + self.t_end * theta.sigmoid()

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> dict[str, Tensor]:
        """The terms of the inner method at τ."""
        return self.inner.terms(batch, student, teacher, progress, temperature=self.temperature(progress.epoch))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """θ in a group of its own, then the groups of the inner method."""
        return [{"params": [self.theta], "weight_decay": self.weight_decay}, *self.inner.parameter_groups()]

    @torch.no_grad()
    def metrics(self) -> dict[str, Tensor]:
        """τ, and what the inner method has to say."""
        return {"temperature": self.t_start + self.t_end * self.theta.sigmoid(), **self.inner.metrics()}
