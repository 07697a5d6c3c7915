"""What `pseudo` makes of a teacher's answers, and what it declares."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distillctl import Batch, Guesses, Progress, Relabels, RunError, Setup, Side
from distillctl.testing.declarations import DeclarationChecks
from distillctl_pseudo.method import Pseudo
from distillctl_pseudo.options import PseudoOptions
from distillctl_pseudo.plugin import SPEC

GUESSES = Guesses(torch.tensor([0.9, 0.5, 0.49]), torch.tensor([0, 1, 1]), torch.tensor([True, False]))
PROGRESS = Progress(torch.tensor(1.0), torch.tensor(0.0))


class TestDeclarations(DeclarationChecks):
    """It has no terms, so that the rest of the contract has nothing to look at."""

    spec = SPEC


def method(labels: list[int], **options: object) -> Pseudo:
    side = Side("net", nn.Identity(), {})
    return Pseudo(PseudoOptions(**options), Setup(side, side, 3, torch.tensor(labels)))  # type: ignore[arg-type]


def relabels(**options: object) -> Relabels:
    return method([0, -1], **options).relabel(GUESSES, PROGRESS)


def test_answers_from_the_threshold_on_count_by_their_score() -> None:
    assert relabels().weights.tolist() == pytest.approx([0.9, 0.5, 0.0])
    assert relabels(threshold=0.6).weights.tolist() == pytest.approx([0.9, 0.0, 0.0])
    assert relabels(soft=False).weights.tolist() == [1.0, 1.0, 0.0]


def test_images_with_labels_keep_them_unless_all_are_meant() -> None:
    assert relabels().images.tolist() == [False, True]
    assert relabels(images="all").images.tolist() == [True, True]


def test_without_images_without_labels_nothing_would_be_learnt() -> None:
    with pytest.raises(RunError, match="all images have their own"):
        method([0, 1], images="unlabelled")
    assert method([0, 1], images="all").notes == ()
    told = method([0, 1])
    assert told.every
    assert "in place of all labels" in told.notes[0]


def test_there_are_no_terms() -> None:
    batch = Batch(torch.zeros(2, 3, 4, 4), torch.tensor([0, -1]), torch.arange(2))
    assert method([0, -1])(batch, {}, {}, PROGRESS) == {}
