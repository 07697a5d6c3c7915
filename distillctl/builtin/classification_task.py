"""Images that belong to one class each: cross entropy, top-1, and what guessing reaches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from distillctl.api.data import NO_LABEL, Images, Splits
from distillctl.api.method import Batch
from distillctl.api.relabel import Guesses, Relabels
from distillctl.api.task import PLAIN_LOSS, Evaluation, LossOptions, Outputs, Task, output
from distillctl.builtin.class_order import better_order
from distillctl.builtin.classification_details import DetailedMeter, Details
from distillctl.builtin.classification_loss import LabelLoss
from distillctl.builtin.classification_meter import ClassificationMeter
from distillctl.errors import ProfileError, RunError

KEPT = 5
"""Classes that are kept of the answer to an image."""


class Classification(Task):
    """One label for each image, logits (B, classes), cross entropy with label smoothing."""

    metric = "top1"
    names: ClassVar[Mapping[str, str]] = {"top1": "top-1", "top5": "top-5", "mpa": "mpa", "loss": "loss"}
    detail_names: ClassVar[Mapping[str, str]] = {
        "macro_precision": "macro precision",
        "macro_recall": "macro recall",
        "macro_f1": "macro F1",
        "ece": "ECE",
    }
    teacher_names: ClassVar[Mapping[str, str]] = {"teacher_kl": "KL to the teacher", "teacher_agreement": "agreement with it"}
    class_figures: ClassVar[Mapping[str, str]] = {"precision": "precision", "recall": "recall", "f1": "F1"}
    gives = frozenset({"labels", "logits"})
    views = ("flip", "five_crop", "ten_crop", "multi_scale")
    answers = "classes"
    smooths = True
    mixes = True
    relabels = True

    @property
    def outputs(self) -> int:
        return self.data.num_classes

    def check_output(self, output: object, model: str) -> None:
        if not isinstance(output, Tensor) or output.ndim != 2:
            raise RunError(f"`{model}` does not return logits of shape (B, classes)")

    def check_teacher(self, outputs: int, classes: Sequence[str], place: str) -> tuple[str, ...]:
        ours = self.data.classes
        if outputs != len(ours):
            raise ProfileError(f"the teacher in `{place}` knows {outputs} classes, the data set has {len(ours)}")
        if list(ours) != list(classes) and sorted(ours) == sorted(classes):
            raise ProfileError(
                f"the teacher in `{place}` knows the same classes as the data set, but in another order",
                hint="`dataset.class_order` states an order, if the data set has that option",
            )
        other = [(number, name) for number, (name, mine) in enumerate(zip(classes, ours, strict=False)) if name != mine]
        if moved := [(number, name) for number, name in other if name in ours]:
            number, name = moved[0]
            raise ProfileError(f"class {number} of the teacher in `{place}` is `{name}`, which is class {ours.index(name)} of the data set")
        if other:
            number, name = other[0]
            return (
                f"the teacher in `{place}` has other names for {len(other)} classes: class {number} is `{name}`, here `{ours[number]}`",
            )
        return ()

    def doubt(self, evaluation: Evaluation, images: Images) -> tuple[str, str]:
        words, hint = better_order(evaluation.answers.predictions, images.labels, self.data.classes)
        return (f"was trained otherwise: its answers fit the classes far better {words}", hint) if words else ("", "")

    def __init__(self, data: Splits, *, label_smoothing: float = 0.0, loss: LossOptions = PLAIN_LOSS) -> None:
        super().__init__(data, label_smoothing=label_smoothing, loss=loss)
        self._labelled = 1 - data.unlabelled_share
        self._loss = LabelLoss(label_smoothing, loss.focal, loss.poly, self._class_weights(loss.class_weights), self._labelled)

    def _class_weights(self, stated: str | Sequence[float] | None) -> Tensor | None:
        if stated is None:
            return None
        classes, labels = self.data.num_classes, self.data.train.labels[self.data.train.labels != NO_LABEL]
        if isinstance(stated, str):  # the mean over the training images is 1
            return len(labels) / (classes * torch.bincount(labels, minlength=classes).clamp(min=1).float())
        if len(stated) != classes:
            raise ProfileError(f"`train.class_weights` has {len(stated)} weights for {classes} classes", where="train")
        return torch.tensor(stated, dtype=torch.float32)

    def label_loss(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {"": self._loss(output(outputs).float(), batch.labels, batch.soft, batch.weights)}

    def figures(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        right = (output(outputs).detach().argmax(1) == batch.labels).sum()
        return {"top1": right if self._labelled == 1 else right / self._labelled}

    def guesses(self, teacher: nn.Module | None, look: Outputs, batch: Batch) -> Guesses:
        """The teacher's most likely class of each image, with its probability as score."""
        scores, classes = output(look).float().softmax(1).max(1)
        return Guesses(scores, torch.arange(batch.count, device=scores.device), batch.labels != NO_LABEL, classes)

    def relabelled(self, batch: Batch, guesses: Guesses, relabels: Relabels) -> Batch:
        """Pseudo labels (Lee 2013): an image that learns from the teacher and whose class is left out has no label."""
        guessed = torch.where(relabels.weights > 0, guesses.content, NO_LABEL)
        labels = torch.where(relabels.images, guessed, batch.labels)
        return replace(batch, labels=labels, weights=torch.where(relabels.images, relabels.weights, 1.0))

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits (B, classes) in float32; those of several views are averaged."""
        images = batch.images
        logits: Tensor = model(images if images.ndim == 4 else images.flatten(0, 1))
        if images.ndim == 5:
            logits = logits.reshape(*images.shape[:2], -1).mean(1)
        return logits.float()

    def meter(self) -> ClassificationMeter:
        return ClassificationMeter(self.data.num_classes)

    def details(self, *, teacher: bool = False) -> DetailedMeter:
        return DetailedMeter(self.data.num_classes, teacher=teacher)

    def kept(self, predictions: Any, batch: Batch) -> Mapping[str, Tensor]:
        logits = predictions[0] if isinstance(predictions, tuple) else predictions
        shares = logits.float().softmax(1)
        classes = logits.topk(min(KEPT, logits.shape[1]), dim=1).indices  # as the meter asks, so that ties are the same
        own = shares.gather(1, batch.labels[:, None])[:, 0]
        return {"label": batch.labels, "classes": classes, "probabilities": shares.gather(1, classes), "own": own}

    def average(self, answers: Sequence[Any]) -> Tensor:
        return torch.stack(list(answers)).mean(0)

    def chance(self, images: Images) -> float:
        """The accuracy of guessing the most frequent class."""
        counts = torch.bincount(images.labels, minlength=self.data.num_classes)
        return max(float(counts.max()) / len(images.labels), 1 / self.data.num_classes)

    def floor(self, images: Images) -> float:
        """That of guessing the most frequent class, plus three standard deviations of such a count; what errs nowhere does not guess."""
        share, count = self.chance(images), len(images.labels)
        return max(share, min(share + 3 * math.sqrt(share * (1 - share) / count), 1 - 0.5 / count))

    def agreement(self, one: Evaluation, other: Evaluation) -> float:
        same = one.answers.predictions == other.answers.predictions
        return float(same.double().mean())

    @classmethod
    def show(cls, figure: str, value: float) -> str:
        return f"{value:.4f}" if figure in ("loss", "teacher_kl") else f"{value:.2%}"

    def breakdown(self, evaluation: Evaluation) -> list[dict[str, Any]]:
        """Beside the counts, of an evaluation by `details`, `precision`, `recall` and `f1`; None for a class that neither occurs nor was
        guessed.
        """
        answers = evaluation.answers
        counts = zip(self.data.classes, answers.correct.tolist(), answers.total.tolist(), strict=True)
        lines: list[dict[str, Any]] = [{"name": name, "correct": right, "count": count} for name, right, count in counts]
        if isinstance(answers, Details):
            for name in self.class_figures:
                for line, value, there in zip(lines, getattr(answers, name).tolist(), answers.there.tolist(), strict=True):
                    line[name] = value if there else None
        return lines

    def confusion(self, evaluation: Evaluation) -> Tensor | None:
        return evaluation.answers.confusion if isinstance(evaluation.answers, Details) else None


__all__ = ["Classification"]
