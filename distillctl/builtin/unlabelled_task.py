"""Images without labels: everything is learnt from a teacher, and judged by how alike both answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from distillctl.api.data import Images
from distillctl.api.method import OUTPUT, Batch
from distillctl.api.task import Evaluation, Outputs, Task
from distillctl.builtin.unlabelled_meter import UnlabelledMeter

_POOLED = "pooled"
_ENOUGH = 20
"""Images from which on one answer to all of them is no chance."""


class Answer(NamedTuple):
    """Of one network, in float32; of several views of an image, the mean.

    logits: (B, outputs). pooled: (B, C), what the classifier receives; None where that is not known.
    """

    logits: Tensor
    pooled: Tensor | None


class Unlabelled(Task):
    """No targets and no label loss. Its logits number as many as the teacher's, or as many as the data set states."""

    metric = "agreement"
    names: ClassVar[Mapping[str, str]] = {
        "agreement": "agreement",
        "kl": "KL",
        "cosine": "cosine",
        "feature_cosine": "cosine of features",
        "knn": "k-NN",
    }
    gives = frozenset({"logits"})
    views = ("flip", "five_crop", "ten_crop", "multi_scale")
    answers = "classes"
    mixes = True
    compares = True
    reads = (_POOLED,)

    @property
    def outputs(self) -> int:
        return self.data.outputs

    def label_loss(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {}

    def predict(self, model: nn.Module, batch: Batch) -> Answer:
        """Logits and, where the model gives `Outputs`, pooled features."""
        images = batch.images
        given = model(images if images.ndim == 4 else images.flatten(0, 1))
        outputs: Outputs = given if isinstance(given, Mapping) else {OUTPUT: given}
        logits, pooled = outputs[OUTPUT].float(), outputs.get(_POOLED)
        pooled = None if pooled is None else pooled.float().flatten(1)
        if images.ndim == 5:
            logits = logits.unflatten(0, images.shape[:2]).mean(1)
            pooled = None if pooled is None else pooled.unflatten(0, images.shape[:2]).mean(1)
        return Answer(logits, pooled)

    def meter(self) -> UnlabelledMeter:
        return UnlabelledMeter()

    def average(self, answers: Sequence[Answer]) -> Answer:
        pooled = [answer.pooled for answer in answers if answer.pooled is not None]
        return Answer(torch.stack([answer.logits for answer in answers]).mean(0), torch.stack(pooled).mean(0) if pooled else None)

    def floor(self, images: Images) -> float:
        """What answers drawn at random reach."""
        return 1 / self.outputs

    def doubt(self, evaluation: Evaluation, images: Images) -> tuple[str, str]:
        theirs, count = evaluation.answers.teacher, len(images)
        if count < _ENOUGH or len(theirs.unique()) > 1:
            return "", ""
        return f"gives all {count} images the same answer, so that there is nothing to learn", "are its weights trained, for such images?"

    @classmethod
    def show(cls, figure: str, value: float) -> str:
        return f"{value:.2%}" if figure in ("agreement", "knn") else f"{value:.4f}"


__all__ = ["Answer", "Unlabelled"]
