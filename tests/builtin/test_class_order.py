"""A teacher whose classes are in another order than those of the data is found out by its answers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distillctl.builtin.class_order import better_order

NUMBERS = sorted(map(str, range(20)))  # 0, 1, 10, 11, … as text


def answers(taught: list[str], classes: list[str], share: float = 0.9, each: int = 10) -> tuple[Tensor, Tensor]:
    """What a teacher answers that learnt the classes in the order `taught`, this share of it right, and the labels."""
    labels = torch.arange(len(classes)).repeat(each)
    right = torch.tensor([taught.index(name) for name in classes])[labels]
    generator = torch.Generator().manual_seed(0)
    wrong, draws = torch.randint(len(classes), (len(labels),), generator=generator), torch.rand(len(labels), generator=generator)
    return torch.where(draws < share, right, wrong), labels


@pytest.mark.parametrize(
    ("taught", "classes", "words", "hint"),
    [
        (sorted(NUMBERS, key=int), NUMBERS, "numbers", '`dataset.class_order = "natural"`'),
        (NUMBERS, sorted(NUMBERS, key=int), "letters", "leave out"),
        (["a1", "A2", "b1", "B2"], ["A2", "B2", "a1", "b1"], "without case", '`dataset.class_order = ["a1", "A2", "b1", ...]`'),
        (["c", "a", "d", "b"], list("abcd"), "another order", "as a list"),
    ],
)
@pytest.mark.parametrize("share", [0.4, 0.7, 1.0])
def test_an_order_that_fits_far_better_is_named(taught: list[str], classes: list[str], words: str, hint: str, share: float) -> None:
    said, told = better_order(*answers(taught, classes, share, each=40), classes)
    assert words in said
    assert hint in told


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_teacher_in_the_right_order_is_believed(share: float) -> None:
    assert better_order(*answers(NUMBERS, NUMBERS, share), NUMBERS) == ("", "")


@pytest.mark.parametrize("each", [1, 2, 5, 50])
@pytest.mark.parametrize("size", [3, 10, 20])
@pytest.mark.parametrize("seed", range(5))
def test_guesses_fit_no_order(seed: int, size: int, each: int) -> None:
    labels = torch.arange(size).repeat(each)
    guesses = torch.randint(size, (len(labels),), generator=torch.Generator().manual_seed(seed))
    assert better_order(guesses, labels, NUMBERS[:size]) == ("", "")


def test_an_answer_that_is_always_the_same_fits_no_order() -> None:
    labels = torch.arange(10).repeat(10)
    assert better_order(torch.full_like(labels, 3), labels, NUMBERS[:10]) == ("", "")


def test_two_classes_that_are_exchanged_among_many_are_not_enough() -> None:
    taught = ["1", "0", *NUMBERS[2:]]
    assert better_order(*answers(taught, NUMBERS, 1.0), NUMBERS) == ("", "")
