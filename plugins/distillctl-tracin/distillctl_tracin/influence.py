"""TracInCP: influence of training image z on test image z′ = Σ over checkpoints i of η_i·⟨∇ℓ(θ_i, z), ∇ℓ(θ_i, z′)⟩.

η_i → the learning rate at the end of the checkpoint's epoch; ℓ → cross entropy on labels; θ_i → the student that `train.keep_every` kept.
Positive: a step on z lowered the loss of z′ (z is a proponent); negative: it raised it (an opponent).
Pruthi, Liu, Kale, Sundararajan 2020, arXiv 2002.08484.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import nn

from distillctl import OpenedRun
from distillctl_tracin.gradients import Gradients, Terms, dot_products

Split = Literal["train", "val", "test"]
Values = npt.NDArray[np.float32]


def add_influences(
    run: OpenedRun,
    make: Callable[[nn.Module], Gradients],
    rates: Mapping[int, float],
    train: Sequence[int],
    test: Sequence[int],
    split: Split,
    values: Values,
    told: Callable[[int], Any] = str,
) -> int:
    """Adds the influences of these training images on these images of a split to `values`, (len(train), len(test)), block by block.

    What is held at once are gradients of one block of each side; where they are small (`Gradients.held`), those of all images.

    Args:
        run: whose checkpoints they are.
        make: what is computed of a network.
        rates: learning rate by epoch.
        train: positions in the training split.
        test: positions in `split`.
        split: the other side.
        values: zeros, perhaps a mapped file.
        told: is called with each epoch before it.

    Returns:
        Of how many parameters the gradients are.
    """
    count = 0
    for epoch, rate in rates.items():
        told(epoch)
        with run.student(epoch) as model:
            gradients = make(model)
            count = gradients.count
            held = list(_blocks(run, gradients, split, test)) if gradients.held else None
            for rows, mine in _blocks(run, gradients, "train", train):
                for columns, theirs in held or _blocks(run, gradients, split, test):
                    values[rows, columns] += rate * dot_products(mine, theirs).cpu().numpy()
    return count


def _blocks(run: OpenedRun, gradients: Gradients, split: Split, index: Sequence[int]) -> Iterator[tuple[slice, Terms]]:
    """Gradients with the part of `index` that they belong to."""
    begin = 0
    for batch in run.batches(split, index, size=gradients.rows):
        end = begin + len(batch.labels)
        yield slice(begin, end), gradients(batch.images, batch.labels)
        begin = end
