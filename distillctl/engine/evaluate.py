"""Accuracy of a classifier on one split. Always in float32, so that it is what the deployed weights give anywhere."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillctl.api.method import Batch
from distillctl.distributed.process_group import ALONE, ProcessGroup
from distillctl.errors import RunError
from distillctl.models.features import evaluating

_Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class Metrics:
    """What an evaluation gives.

    top1, top5: shares of images whose label is the best guess, or among the five best. With fewer than six classes top5 is 1.
    mpa: mean over the classes that occur of the share of their images that are right.
    loss: mean cross entropy in nats.
    count: images.
    """

    top1: float
    top5: float
    mpa: float
    loss: float
    count: int

    def as_dict(self) -> dict[str, float]:
        """For records and JSON."""
        return {"top1": self.top1, "top5": self.top5, "mpa": self.mpa, "loss": self.loss, "count": self.count}


@dataclass(frozen=True)
class Evaluation:
    """Metrics with what they were computed from.

    predictions: int64, (N,), best guess for each image in the order of the split.
    correct, total: int64, (C,), by class.
    """

    metrics: Metrics
    predictions: Tensor
    correct: Tensor
    total: Tensor


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[Batch], num_classes: int, processes: ProcessGroup = ALONE) -> Evaluation:
    """Runs `model` in evaluation mode over all batches; the modes of its modules are put back afterwards.

    Images of shape (B, V, C, H, W) are V views of each image, whose logits are averaged. Of several processes each runs over its own
    batches (every so many-th) with equal weights, and all get the same evaluation, which is that of one process alone.

    Raises:
        RunError: there is no image, or a logit is not finite.
    """
    predictions: list[Tensor] = []
    labels: list[Tensor] = []
    sums: list[Tensor] = []
    with evaluating(model):
        for batch in batches:
            logits = _logits(model, batch.images).float()
            best = logits.topk(min(5, num_classes), dim=1).indices
            predictions.append(best[:, 0])
            labels.append(batch.labels)
            top5 = (best == batch.labels[:, None]).any(1).sum()
            loss = F.cross_entropy(logits, batch.labels, reduction="sum")
            sums.append(torch.stack([top5.double(), loss.double()]))
    found = _in_order(
        processes.all_gather([tuple(t.cpu() for t in batch) for batch in zip(predictions, labels, sums, strict=True)], patient=True)
    )
    if not found:
        raise RunError("there is no image to evaluate")
    guess, truth = torch.cat([batch[0] for batch in found]), torch.cat([batch[1] for batch in found])
    correct = torch.bincount(truth[guess == truth], minlength=num_classes)
    total = torch.bincount(truth, minlength=num_classes)
    seen = total > 0
    top5_sum, loss_sum = sum(batch[2] for batch in found).tolist()  # type: ignore[union-attr]
    if not math.isfinite(loss_sum):
        raise RunError("the logits of an evaluation are not finite")
    count = len(truth)
    metrics = Metrics(
        top1=int(correct.sum()) / count,
        top5=top5_sum / count,
        mpa=float((correct[seen].double() / total[seen].double()).mean()),
        loss=loss_sum / count,
        count=count,
    )
    return Evaluation(metrics, guess, correct, total)


def _in_order(parts: list[list[_Batch]]) -> list[_Batch]:
    """The batches of all processes as one would have gone through them."""
    longest = max(len(part) for part in parts)
    return [part[number] for number in range(longest) for part in parts if number < len(part)]


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor
    if images.ndim == 4:
        logits = model(images)
        return logits
    count, views = images.shape[:2]
    logits = model(images.flatten(0, 1))
    return logits.reshape(count, views, -1).mean(1)


def chance_level(labels: Tensor, num_classes: int) -> float:
    """The accuracy that guessing one class reaches, plus three standard deviations of such a count."""
    counts = torch.bincount(labels, minlength=num_classes)
    share = max(float(counts.max()) / len(labels), 1 / num_classes)
    return share + 3 * math.sqrt(share * (1 - share) / len(labels))
