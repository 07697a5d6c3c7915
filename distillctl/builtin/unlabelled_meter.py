"""How alike a student and its teacher answer, and how well the student's features tell labelled images apart.

The figures are equal to the last digit for any number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from distillctl.api.method import Batch
from distillctl.api.task import Evaluation
from distillctl.builtin.classification_meter import in_turn
from distillctl.errors import RunError

if TYPE_CHECKING:
    from distillctl.builtin.unlabelled_task import Answer

NEIGHBOURS, TEMPERATURE = 20, 0.07
_AT_ONCE = 1024
"""Images whose neighbours are looked for together."""

_Added = tuple[Tensor, ...]
_Parts = tuple[list[_Added], list[_Added]]


@dataclass(frozen=True)
class Answers:
    """Best guesses of both networks: int64, (N,), in the order of the split."""

    predictions: Tensor
    teacher: Tensor


class UnlabelledMeter:
    """Implements `distillctl.Meter` for pairs of `Answer`.

    Its figures, as means over the images:
    agreement: share of images on which the largest logit is the same one.
    kl: KL(teacher ‖ student) of the softmax at temperature 1, in nats.
    cosine: of the logits.
    feature_cosine: of the pooled features, where both have the same number of dimensions.
    knn: accuracy of nearest neighbours (`nearest_neighbours`) by the student's pooled features, where there are labelled images.
    count: images, without the labelled ones.
    """

    def __init__(self) -> None:
        self._compared: list[_Added] = []  # of a batch: both best guesses, sums
        self._labelled: list[_Added] = []  # of a batch: features, labels, which are asked for

    def add(self, predictions: tuple[Answer, Answer | None], batch: Batch) -> None:
        """Compares on the device, without waiting for it."""
        mine, theirs = predictions
        if theirs is None:
            if mine.pooled is None:
                raise RunError("the student declares no classifier, so that it has no pooled features whose neighbours could be looked for")
            self._labelled.append((F.normalize(mine.pooled, dim=1), batch.labels, batch.targets))
            return
        logits, others = mine.logits.double(), theirs.logits.double()
        kl = F.kl_div(logits.log_softmax(1), others.log_softmax(1), log_target=True, reduction="sum")
        sums = [kl, F.cosine_similarity(logits, others).sum(), others.isfinite().logical_not().sum().double()]
        if mine.pooled is not None and theirs.pooled is not None and mine.pooled.shape == theirs.pooled.shape:
            sums.append(F.cosine_similarity(mine.pooled.double(), theirs.pooled.double()).sum())
        self._compared.append((logits.argmax(1), others.argmax(1), torch.stack(sums)))

    def state(self) -> _Parts:
        compared, labelled = ([tuple(t.cpu() for t in one) for one in part] for part in (self._compared, self._labelled))
        return compared, labelled

    def merge(self, states: Sequence[_Parts]) -> None:
        """Puts the batches into the order in which one process would have gone through them, since sums depend on it."""
        self._compared, self._labelled = (in_turn([state[part] for state in states]) for part in range(2))

    def result(self) -> Evaluation:
        """The figures of all batches.

        Raises:
            RunError: there is no image, or a logit is not finite.
        """
        if not self._compared:
            raise RunError("there is no image to evaluate")
        mine, theirs = (torch.cat([one[k] for one in self._compared]) for k in range(2))
        kl, cosine, broken, *features = sum(one[2] for one in self._compared).tolist()  # type: ignore[union-attr]
        if broken:
            raise RunError("the logits of the teacher are not finite")
        if not math.isfinite(kl):
            raise RunError("the logits of an evaluation are not finite")
        count = len(mine)
        figures = {"agreement": int((mine == theirs).sum()) / count, "kl": kl / count, "cosine": cosine / count}
        if features:
            figures["feature_cosine"] = features[0] / count
        if self._labelled:
            vectors, labels, asked = (torch.cat([one[k] for one in self._labelled]) for k in range(3))
            wanted = asked.bool()
            found = nearest_neighbours(vectors[wanted], vectors[~wanted], labels[~wanted])
            figures["knn"] = int((found == labels[wanted]).sum()) / len(found)
        return Evaluation({**figures, "count": count}, Answers(mine, theirs))


def nearest_neighbours(asked: Tensor, known: Tensor, labels: Tensor) -> Tensor:
    """The class of each vector by its 20 nearest neighbours by cosine, which vote with exp(cosine / 0.07).

    As Wu et al. 2018 (arXiv 1805.01978) judge features. Of fewer than 20 known vectors all vote; of classes with the same votes
    the first one wins.

    asked: (N, C); known: (M, C), both of length 1. labels: int64, (M,), from 0.

    Returns:
        int64, (N,).
    """
    classes = int(labels.max()) + 1
    found = []
    for some in asked.split(_AT_ONCE):
        near = (some @ known.T).topk(min(NEIGHBOURS, len(known)), dim=1)
        votes = torch.zeros(len(some), classes, dtype=torch.float64).scatter_add_(
            1, labels[near.indices], (near.values.double() / TEMPERATURE).exp()
        )
        found.append(votes.argmax(1))
    return torch.cat(found)
