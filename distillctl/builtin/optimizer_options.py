"""Options of the built-in optimizers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distillctl.api.options import Options

Rate = Annotated[float, Field(gt=0, le=1e3)]
Decay = Annotated[float, Field(ge=0, le=1e3)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class SGDOptions(Options):
    """Options of `sgd`."""

    lr: Rate = 0.05
    """Learning rate before the schedule."""
    momentum: Beta = 0.9
    """Decay of the running sum of gradients."""
    nesterov: bool = False
    """Nesterov's form of the momentum."""
    weight_decay: Decay = 5e-4
    """Added to the gradient as weight_decay · θ."""
    decay: Literal["all", "weights"] = "all"
    """What decays: every parameter, or only matrices and kernels (no biases, no norms)."""


class AdamWOptions(Options):
    """Options of `adamw`."""

    lr: Rate = 1e-3
    """Learning rate before the schedule."""
    beta1: Beta = 0.9
    """Decay of the mean of the gradients."""
    beta2: Beta = 0.999
    """Decay of the mean of their squares."""
    eps: Annotated[float, Field(ge=1e-20, le=1)] = 1e-8
    """Added to the root of the mean square."""
    weight_decay: Decay = 1e-2
    """Subtracted as lr · weight_decay · θ."""
    decay: Literal["all", "weights"] = "weights"
    """What decays: every parameter, or only matrices and kernels (no biases, no norms)."""
