"""Builds the optimizer from groups and options."""

from __future__ import annotations

from typing import Any

from distillctl import split_decay
from distillctl_dot.optimizer import DOT
from distillctl_dot.options import DOTOptions

Group = dict[str, Any]


def build(groups: list[Group], options: DOTOptions) -> DOT:
    """The optimizer; with `decay = "weights"`, each group is parted in what decays and what does not."""
    return DOT(
        split_decay(groups, options.decay),
        lr=options.lr,
        momentum=options.momentum,
        delta=options.delta,
        weight_decay=options.weight_decay,
    )
