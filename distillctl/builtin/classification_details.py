"""What an evaluation after training tells of a classifier beside the figures that training records: by class, of its confidence, and beside
its teacher. Equal to the last digit for any number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distillctl.api.method import Batch
from distillctl.api.task import Evaluation
from distillctl.builtin.classification_meter import Answers, ClassificationMeter, in_turn
from distillctl.errors import RunError

MOST_CLASSES = 2000
"""Of a confusion matrix: of 21,841 classes it would take 3.8 GB."""
BINS = 15
"""Of the confidence, for the expected calibration error."""

_Added = tuple[Tensor, ...]  # of a batch: confidences; beside a teacher, its best guesses, and the sums of KL and of what is not finite
_Parts = tuple[list[_Added], list[_Added]]


@dataclass(frozen=True)
class Details(Answers):
    """Beside `Answers`, by class: float64, (C,). `there`: bool, (C,), whether any image is, or was taken for one, of this class."""

    precision: Tensor
    recall: Tensor
    f1: Tensor
    there: Tensor

    @property
    def confusion(self) -> Tensor | None:
        """int64, (C, C): images of class i that were taken for class j; None of more than `MOST_CLASSES` classes."""
        classes = len(self.total)
        if classes > MOST_CLASSES:
            return None
        return torch.bincount(self.labels * classes + self.predictions, minlength=classes**2).view(classes, classes)


class DetailedMeter:
    """Implements `distillctl.Meter` for logits (B, C), or for pairs of them, the model's and its teacher's.

    Its figures beside those of `ClassificationMeter`:
    macro_precision, macro_recall, macro_f1: means over the classes that occur or were guessed. As in torchmetrics, a quotient without a
        denominator is 0: the precision of a class that was never guessed, and the recall of one that was guessed but does not occur. Hence
        `macro_recall` is `mpa`, whose mean is over the classes that occur, only if no other class was guessed.
    ece: expected calibration error (Guo, Pleiss, Sun, Weinberger 2017, arXiv 1706.04599): how far confidence, the largest probability, and
        accuracy lie apart in 15 bins of equal width (a, b], weighted by their images.
    teacher_kl: beside a teacher, mean of KL(teacher ‖ student) of the softmax at temperature 1, in nats.
    teacher_agreement: beside a teacher, share of images with the same best guess.
    """

    def __init__(self, num_classes: int, *, teacher: bool = False) -> None:
        self._meter, self._teacher = ClassificationMeter(num_classes), teacher
        self._added: list[_Added] = []

    def add(self, predictions: Tensor | tuple[Tensor, Tensor], batch: Batch) -> None:
        """Counts on the device, without waiting for it."""
        logits, theirs = predictions if isinstance(predictions, tuple) else (predictions, None)
        self._meter.add(logits, batch)
        mine = logits.double().log_softmax(1)
        confidence = mine.amax(1).exp()
        if theirs is None:
            self._added.append((confidence,))
            return
        kl = F.kl_div(mine, theirs.double().log_softmax(1), log_target=True, reduction="sum")
        broken = theirs.isfinite().logical_not().sum().double()
        self._added.append((confidence, theirs.argmax(1), torch.stack([kl, broken])))

    def state(self) -> _Parts:
        return self._meter.state(), [tuple(t.cpu() for t in one) for one in self._added]

    def merge(self, states: Sequence[_Parts]) -> None:
        """Puts the batches into the order in which one process would have gone through them, since sums depend on it."""
        self._meter.merge([counted for counted, _ in states])
        self._added = in_turn([added for _, added in states])

    def result(self) -> Evaluation:
        """The figures of all batches.

        Raises:
            RunError: there is no image, or a logit is not finite.
        """
        plain = self._meter.result()
        answers: Answers = plain.answers
        right, total = answers.correct.double(), answers.total.double()
        guessed = torch.bincount(answers.predictions, minlength=len(total)).double()
        precision, recall = right / guessed.clamp(min=1), right / total.clamp(min=1)
        f1 = 2 * right / (guessed + total).clamp(min=1)
        there = guessed + total > 0
        figures = {name: float(value[there].mean()) for name, value in (("precision", precision), ("recall", recall), ("f1", f1))}
        more = {f"macro_{name}": value for name, value in figures.items()}
        confidence = torch.cat([one[0] for one in self._added])
        more["ece"] = calibration_error(confidence, answers.predictions == answers.labels)
        if self._teacher:
            kl, broken = sum(one[2] for one in self._added).tolist()  # type: ignore[union-attr]
            if broken:
                raise RunError("the logits of the teacher are not finite")
            if not math.isfinite(kl):
                raise RunError("the logits of an evaluation are not finite")
            same = torch.cat([one[1] for one in self._added]) == answers.predictions
            more |= {"teacher_kl": kl / len(same), "teacher_agreement": int(same.sum()) / len(same)}
        count = plain.figures["count"]
        figures = {**{name: value for name, value in plain.figures.items() if name != "count"}, **more, "count": count}
        return Evaluation(figures, Details(**vars(answers), precision=precision, recall=recall, f1=f1, there=there))


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """The expected calibration error over `BINS` bins. confidence: float64, (N,), in (0, 1]. right: bool, (N,)."""
    bins = ((confidence * BINS).ceil().long() - 1).clamp(0, BINS - 1)
    sums = [torch.bincount(bins, weights=values.double(), minlength=BINS) for values in (right, confidence)]
    return float((sums[0] - sums[1]).abs().sum()) / len(confidence)


__all__ = ["BINS", "DetailedMeter", "Details", "calibration_error"]
