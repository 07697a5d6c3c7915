"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import OptimizerSpec, hookimpl

DISTILLCTL_API = 1
SPEC = OptimizerSpec(
    name="dot",
    summary="stochastic gradient descent with more momentum for what is distilled than for the labels",
    paper="Zhao, Cui, Song, Liang 2023, arXiv 2307.08436",
    title="DOT: A Distillation-Oriented Trainer",
    authors="Zhao, Borui and Cui, Quan and Song, Renjie and Liang, Jiajun",
    venue="ICCV",
    implementation="distillctl_dot.build:build",
    options="distillctl_dot.options:DOTOptions",
    separate_gradients=True,
)


@hookimpl
def register_optimizer() -> OptimizerSpec:
    """The distillation-oriented trainer."""
    return SPEC
