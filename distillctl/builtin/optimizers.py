"""Declares `sgd` and `adamw`."""

from __future__ import annotations

from distillctl.api.hooks import hookimpl
from distillctl.api.specs import OptimizerSpec


@hookimpl
def register_optimizer() -> list[OptimizerSpec]:
    """The two that nearly every recipe uses."""
    return [
        OptimizerSpec(
            name="sgd",
            summary="stochastic gradient descent with momentum",
            implementation="distillctl.builtin.optimizer_builders:build_sgd",
            options="distillctl.builtin.optimizer_options:SGDOptions",
        ),
        OptimizerSpec(
            name="adamw",
            summary="Adam with decoupled weight decay",
            paper="Loshchilov, Hutter 2019, arXiv 1711.05101",
            title="Decoupled Weight Decay Regularization",
            authors="Loshchilov, Ilya and Hutter, Frank",
            venue="ICLR",
            implementation="distillctl.builtin.optimizer_builders:build_adamw",
            options="distillctl.builtin.optimizer_options:AdamWOptions",
        ),
    ]
