"""Counts of a classifier's answers, equal to the last digit for any number of processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distillctl.api.method import Batch
from distillctl.api.task import Evaluation
from distillctl.errors import RunError

_Counted = tuple[Tensor, ...]  # of a batch: best guesses, labels, sums of top-5 and loss


@dataclass(frozen=True)
class Answers:
    """Best guesses and what they add up to.

    predictions, labels: int64, (N,), in the order of the split.
    correct, total: int64, (C,), images by class.
    """

    predictions: Tensor
    labels: Tensor
    correct: Tensor
    total: Tensor


class ClassificationMeter:
    """Implements `distillctl.Meter` for logits (B, C).

    Its figures:
    top1, top5: shares of images whose label is the best guess, or among the five best. With fewer than six classes top5 is 1.
    mpa: mean over the classes that occur of the share of their images that are right.
    loss: mean cross entropy in nats.
    count: images.
    """

    def __init__(self, num_classes: int) -> None:
        self._classes = num_classes
        self._counted: list[_Counted] = []

    def add(self, predictions: Tensor, batch: Batch) -> None:
        """Counts on the device, without waiting for it."""
        best = predictions.topk(min(5, self._classes), dim=1).indices
        top5 = (best == batch.labels[:, None]).any(1).sum()
        loss = F.cross_entropy(predictions, batch.labels, reduction="sum")
        self._counted.append((best[:, 0], batch.labels, torch.stack([top5.double(), loss.double()])))

    def state(self) -> list[_Counted]:
        return [tuple(t.cpu() for t in counted) for counted in self._counted]

    def merge(self, states: Sequence[list[_Counted]]) -> None:
        """Puts the batches into the order in which one process would have gone through them, since sums depend on it."""
        self._counted = in_turn(states)

    def result(self) -> Evaluation:
        """The figures of all batches.

        Raises:
            RunError: there is no image, or a logit is not finite.
        """
        if not self._counted:
            raise RunError("there is no image to evaluate")
        guess, truth = (torch.cat([counted[k] for counted in self._counted]) for k in range(2))
        correct = torch.bincount(truth[guess == truth], minlength=self._classes)
        total = torch.bincount(truth, minlength=self._classes)
        seen = total > 0
        top5, loss = sum(counted[2] for counted in self._counted).tolist()  # type: ignore[union-attr]
        if not math.isfinite(loss):
            raise RunError("the logits of an evaluation are not finite")
        count = len(truth)
        figures = {
            "top1": int(correct.sum()) / count,
            "top5": top5 / count,
            "mpa": float((correct[seen].double() / total[seen].double()).mean()),
            "loss": loss / count,
            "count": count,
        }
        return Evaluation(figures, Answers(guess, truth, correct, total))


def in_turn(states: Sequence[list[_Counted]]) -> list[_Counted]:
    """The batches of all processes in the order of the split: each went through every so many-th."""
    longest = max(len(part) for part in states)
    return [part[number] for number in range(longest) for part in states if number < len(part)]
