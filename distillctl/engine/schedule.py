"""The learning rate as a pure function of the progress: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Schedule = Callable[[float], float]
"""Progress in [0, 1) → learning rate."""


def schedule(
    name: str,
    lr: float,
    *,
    milestones: Sequence[float] = (),
    gamma: float = 0.1,
    min_lr: float = 0.0,
    cycles: float = 1.0,
    wave: bool = False,
    warmup: float = 0.0,
    warmup_lr: float = 0.0,
) -> Schedule:
    """The rate of a `[schedule]` table for the base rate `lr`.

    During the share `warmup` of the run the rate rises linearly from `warmup_lr` to `lr`; after it comes the shape: `constant`,
    `step` (times `gamma` at each of the `milestones`, shares of the whole run) or `cosine` (half a wave from `lr` down to
    `min_lr` over what remains, or over each of the `cycles` in it; as a `wave`, a cycle goes down and up again).
    """

    def shape(progress: float) -> float:
        if name == "step":
            return lr * gamma ** sum(progress >= m for m in milestones)
        if name == "cosine":
            at = (progress - warmup) / (1 - warmup)
            if wave:
                at = 2 * at * cycles
            elif cycles > 1:
                at = at * cycles
                at = max(0.0, at - math.floor(at + 1e-9))  # a step that begins a cycle is not a hair before it
            return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * at))
        return lr

    def rate(progress: float) -> float:
        if progress < warmup:
            return warmup_lr + (lr - warmup_lr) * progress / warmup
        return shape(progress)

    return rate
