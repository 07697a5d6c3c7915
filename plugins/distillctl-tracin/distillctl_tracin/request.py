"""What is asked for; without torch, so that a mistake is said at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TOP = (100, 500, 800, 1000, 2000)


@dataclass(frozen=True)
class Request:
    """What is asked for.

    train: positions in the training split; None for all.
    test: how many images of the split, spread evenly over it; None for all.
    split: the other side; empty for the test split, or where there is none validation.
    layers: `last`, `all`, or paths of modules.
    project: numbers onto which gradients are projected; None keeps them whole. seed: of the projection.
    checkpoints: epochs; None for all that were kept.
    topk: sizes of the compared tops.
    """

    train: Sequence[int] | None
    test: int | None = None
    split: str = ""
    layers: Sequence[str] = ("last",)
    project: int | None = None
    seed: int = 0
    checkpoints: Sequence[int] | None = None
    topk: Sequence[int] = TOP
