"""Several classifiers as one: the mean of their probabilities, as logits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def mean_logits(logits: Sequence[Tensor], weights: Sequence[float] | Tensor) -> Tensor:
    """The logarithm of Σ_k w_k · softmax(z_k), float32: logits whose softmax is the weighted mean of the classifiers' probabilities.

    logits: of each classifier (rows, classes), which may differ by a constant in each row.
    weights: one number for each, or for each row anew (classifiers, rows); they sum to 1. A classifier of weight 0 does not count.
    """
    logs = [F.log_softmax(one.float(), dim=-1) for one in logits]
    if isinstance(weights, Tensor):
        return torch.logsumexp(torch.stack(logs) + weights.log()[..., None], dim=0)
    # Numbers stay numbers: a captured step cannot copy them to the device.
    return torch.logsumexp(torch.stack([one + math.log(weight) for one, weight in zip(logs, weights, strict=True) if weight > 0]), dim=0)


def confidences(logits: Sequence[Tensor], labels: Tensor, soft: Tensor | None = None) -> Tensor:
    """How much each of K classifiers counts for each row: (1 − softmax_k(CE_k)) / (K − 1), float32, (K, rows).

    Who is nearer to the label counts more (Zhang, Chen, Wang 2022, CA-MKD, arXiv 2201.00007, equation 4).

    labels: int64 (rows,). soft: the share of each class (rows, classes), in place of labels where images were mixed.
    """
    if len(logits) == 1:
        return torch.ones(1, len(labels), device=labels.device)
    losses = torch.stack([F.cross_entropy(one.float(), labels if soft is None else soft, reduction="none") for one in logits])
    return (1 - losses.softmax(0)) / (len(logits) - 1)


class Ensemble(nn.Module):
    """Classifiers that answer together: the plain mean of their probabilities. Each sees the images as its own hooks adapt them."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) → logits (B, classes)."""
        return mean_logits([network(images) for network in self.networks], [1 / len(self.networks)] * len(self.networks))


def normalised(weights: Sequence[float]) -> tuple[float, ...]:
    """Weights that sum to 1, which they did but for rounding."""
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


__all__ = ["Ensemble", "confidences", "mean_logits", "normalised"]
