"""Builds the optimizer from groups and options."""

from __future__ import annotations

from typing import Any

from distillctl_dot.optimizer import DOT
from distillctl_dot.options import DOTOptions

Group = dict[str, Any]


def build(groups: list[Group], options: DOTOptions) -> DOT:
    """The optimizer; with `decay = "weights"`, each group is parted in what decays and what does not."""
    return DOT(
        groups if options.decay == "all" else [part for group in groups for part in _parted(group)],
        lr=options.lr,
        momentum=options.momentum,
        delta=options.delta,
        weight_decay=options.weight_decay,
    )


def _parted(group: Group) -> list[Group]:
    """Matrices and kernels as they are, and biases and norms without decay."""
    heavy = {**group, "params": [p for p in group["params"] if p.ndim > 1]}
    light = {**group, "params": [p for p in group["params"] if p.ndim <= 1], "weight_decay": 0.0}
    return [part for part in (heavy, light) if part["params"]]
