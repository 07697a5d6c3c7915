"""The label loss of classification: cross entropy, and what weighs its images or classes differently."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LabelLoss:
    """The loss of logits against labels, or against soft labels where images were mixed; a mean over the batch.

    With the shares y of the classes (smoothed labels), p = softmax(z) and the weights w of the classes:

        cross entropy:  −Σ_c w_c y_c log p_c
        focal:          −Σ_c w_c y_c (1 − p_c)^γ log p_c         (Lin et al. 2017, arXiv 1708.02002)
        poly:           cross entropy + ε Σ_c w_c y_c (1 − p_c)    (Leng et al. 2022, arXiv 2204.12511: Poly-1)

    smoothing: share of a label's mass that is spread over all classes.
    focal, poly: γ and ε, or None.
    weights: float32, (classes,), or None.
    """

    smoothing: float = 0.0
    focal: float | None = None
    poly: float | None = None
    weights: Tensor | None = None

    def __call__(self, logits: Tensor, labels: Tensor, soft: Tensor | None = None) -> Tensor:
        """The loss of logits (B, classes), 0-dim; labels: int64, (B,); soft: (B, classes)."""
        if self.focal is None and self.poly is None and self.weights is None:
            return F.cross_entropy(logits, labels if soft is None else soft, label_smoothing=self.smoothing)
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
        return (shares * each).sum(1).mean()


__all__ = ["LabelLoss"]
