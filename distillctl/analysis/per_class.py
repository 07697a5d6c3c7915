"""What a classifier's answers say of single classes: how many of each are right, and what is taken for what."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distillctl.rundir.answers import Answers


class Pair(NamedTuple):
    """Images of class `label` that were taken for class `taken`."""

    label: int
    taken: int
    images: int


def accuracies(answers: Answers, classes: int) -> NDArray[np.float64]:
    """The share of right answers to the images of each class: (classes,); NaN where there is no image."""
    total = np.bincount(answers.label, minlength=classes)
    right = np.bincount(answers.label[answers.right], minlength=classes)
    found: NDArray[np.float64] = np.divide(right, total, out=np.full(len(total), np.nan), where=total > 0)
    return found


def confusions(answers: Answers) -> dict[tuple[int, int], int]:
    """How many images of one class were taken for another one: (label, taken) → images."""
    wrong = ~answers.right
    pairs, counts = np.unique(np.stack([answers.label[wrong], answers.classes[wrong, 0]]), axis=1, return_counts=True)
    return {(int(label), int(taken)): int(count) for label, taken, count in zip(*pairs, counts, strict=True)}


def commonest(found: dict[tuple[int, int], int], limit: int) -> list[Pair]:
    """The pairs with most images, and among equals the first ones by number of the class."""
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return [Pair(*pair, count) for pair, count in ordered[:limit]]


def same_images(one: Answers, other: Answers) -> bool:
    """Whether two networks answered to the same images with the same labels in one order."""
    return bool(np.array_equal(one.index, other.index) and np.array_equal(one.label, other.label))
