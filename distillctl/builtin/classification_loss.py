"""The label loss of classification: cross entropy, and what weighs its images or classes differently."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distillctl.api.data import NO_LABEL


@dataclass(frozen=True)
class LabelLoss:
    """The loss of logits against labels, or against soft labels where images were mixed; a mean over the images that have one.

    With the shares y of the classes (smoothed labels), p = softmax(z) and the weights w of the classes:

        cross entropy:  −Σ_c w_c y_c log p_c
        focal:          −Σ_c w_c y_c (1 − p_c)^γ log p_c         (Lin et al. 2017, arXiv 1708.02002)
        poly:           cross entropy + ε Σ_c w_c y_c (1 − p_c)    (Leng et al. 2022, arXiv 2204.12511: Poly-1)

    smoothing: share of a label's mass that is spread over all classes.
    focal, poly: γ and ε, or None.
    weights: float32, (classes,), or None.
    labelled: share of a batch that has labels. The sum is divided by so many images of a part of a batch, whatever there are in it, so that
        parts add up to the loss of the whole.
    """

    smoothing: float = 0.0
    focal: float | None = None
    poly: float | None = None
    weights: Tensor | None = None
    labelled: float = 1.0

    def __call__(self, logits: Tensor, labels: Tensor, soft: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """The loss of logits (B, classes), 0-dim; labels: int64, (B,); soft: (B, classes); weights: (B,), a factor for each image, by whose
        sum nothing is divided.
        """
        if self.labelled < 1 or weights is not None:
            return self._of_some(logits, labels, weights)
        if self.focal is None and self.poly is None and self.weights is None:
            return F.cross_entropy(logits, labels if soft is None else soft, label_smoothing=self.smoothing)
        return self._each(logits, labels, soft).mean()

    def _of_some(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """Of a batch in which some images have no label."""
        has = labels != NO_LABEL
        each = self._each(logits, labels.clamp(min=0), None)
        if weights is not None:
            each = weights * each
        return torch.where(has, each, 0.0).sum() / (len(labels) * self.labelled)

    def _each(self, logits: Tensor, labels: Tensor, soft: Tensor | None) -> Tensor:
        """Of every image: (B,)."""
        classes = logits.shape[1]
        shares = F.one_hot(labels, classes).to(logits.dtype) if soft is None else soft.to(logits.dtype)
        shares = shares * (1 - self.smoothing) + self.smoothing / classes
        if self.weights is not None:
            shares = shares * self.weights.to(logits)
        logs = logits.log_softmax(1)
        missing = 1 - logs.exp()
        each = -logs if self.focal is None else -(missing.clamp(min=0) ** self.focal) * logs
        if self.poly is not None:
            each = each + self.poly * missing
        return (shares * each).sum(1)


__all__ = ["LabelLoss"]
