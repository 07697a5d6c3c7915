"""Sums of an epoch that stay on the device until somebody reads them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distillctl.errors import RunError

_NEVER = float("inf")


@dataclass(frozen=True)
class Reading:
    """Means over the images of an epoch so far.

    terms: every unweighted loss term by name.
    total: the weighted sum.
    top1: share of training images, as augmented, that the student got right while it learnt; None where it did not classify.
    """

    images: int
    terms: dict[str, float]
    total: float
    top1: float | None


class Tally:
    """Adds up an epoch's terms in float64 on the device, and notes the first step at which one was not finite."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._names: tuple[str, ...] = ()
        self._sums: Tensor | None = None
        self._bad: Tensor | None = None
        self._classifies = True
        self.images = 0

    def add(self, step: int, labels: Tensor, logits: Tensor | None, total: Tensor, terms: dict[str, Tensor]) -> None:
        """Takes in one batch; does not wait for the device."""
        names = (*terms, "total")
        losses = torch.stack([*(t.detach() for t in terms.values()), total.detach()]).double()
        self._classifies = logits is not None
        right = torch.zeros_like(losses[0]) if logits is None else (logits.detach().argmax(1) == labels).sum().double()
        values = torch.cat([losses * len(labels), right[None]])
        if self._sums is None or self._bad is None:
            self._names = names
            self._sums = torch.zeros_like(values)
            self._bad = torch.full_like(losses, _NEVER)
        elif names != self._names:
            raise RunError(f"the loss terms changed in the middle of an epoch: {', '.join(self._names)} became {', '.join(names)}")
        self._sums += values
        self._bad = torch.minimum(self._bad, torch.where(losses.isfinite(), _NEVER, float(step)))
        self.images += len(labels)

    def read(self) -> Reading:
        """The means so far. This is the one place of the loop that waits for the device.

        Raises:
            RunError: a term was not finite; the message names the terms that were first, and the step.
        """
        assert self._sums is not None
        assert self._bad is not None
        sums, bad = self._sums.tolist(), self._bad.tolist()
        first = min(bad)
        if first < _NEVER:
            guilty = [n for n, b in zip(self._names, bad, strict=True) if b == first and n != "total"] or ["total"]
            raise RunError(
                f"the loss is not finite: {' and '.join(f'`{g}`' for g in guilty)} at step {int(first) + 1}",
                hint='lower `optimizer.lr` or the method\'s `weight`, set `train.clip_grad_norm`, or use `train.precision = "fp32"`',
            )
        means = {name: value / self.images for name, value in zip(self._names, sums, strict=False)}
        top1 = sums[-1] / self.images if self._classifies else None
        return Reading(self.images, {n: v for n, v in means.items() if n != "total"}, means["total"], top1)
