"""Accuracy and confusions by class, by hand."""

from __future__ import annotations

import numpy as np

from distillctl.analysis.per_class import Pair, accuracies, commonest, confusions, same_images
from distillctl.rundir.answers import Answers


def answers(label: list[int], guess: list[int]) -> Answers:
    classes = np.array(guess)[:, None]
    ones = np.ones(len(label), np.float32)
    return Answers(np.arange(len(label)), np.array(label), classes, ones[:, None], ones)


def test_accuracies_and_confusions() -> None:
    found = answers([0, 0, 0, 1, 1, 3, 3], [0, 2, 2, 1, 0, 0, 0])
    shares = accuracies(found, 4)
    assert shares[[0, 1, 3]].tolist() == [1 / 3, 0.5, 0.0]
    assert np.isnan(shares[2]), "there is no image of it"
    assert confusions(found) == {(0, 2): 2, (1, 0): 1, (3, 0): 2}
    assert commonest(confusions(found), 2) == [Pair(0, 2, 2), Pair(3, 0, 2)]
    assert confusions(answers([0, 1], [0, 1])) == {}


def test_other_images_are_not_the_same() -> None:
    one = answers([0, 1], [0, 0])
    assert same_images(one, answers([0, 1], [1, 1]))
    assert not same_images(one, answers([1, 1], [0, 0]))
    assert not same_images(one, answers([0, 1, 1], [0, 0, 0]))
