"""Sums of an epoch that stay on the device until somebody reads them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distillctl.distributed.process_group import ALONE, ProcessGroup
from distillctl.errors import RunError


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
    """Adds up an epoch's terms in float64 on the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._names: tuple[str, ...] = ()
        self._sums: Tensor | None = None
        self._classifies = True
        self.images = 0

    def add(self, labels: Tensor, logits: Tensor | None, total: Tensor, terms: dict[str, Tensor]) -> None:
        """Takes in one batch; does not wait for the device."""
        names = (*terms, "total")
        losses = torch.stack([*(t.detach() for t in terms.values()), total.detach()]).double()
        self._classifies = logits is not None
        right = torch.zeros_like(losses[0]) if logits is None else (logits.detach().argmax(1) == labels).sum().double()
        values = torch.cat([losses * len(labels), right[None]])
        if self._sums is None:
            self._names = names
            self._sums = torch.zeros_like(values)
        elif names != self._names:
            raise RunError(f"the loss terms changed in the middle of an epoch: {', '.join(self._names)} became {', '.join(names)}")
        self._sums += values
        self.images += len(labels)

    def read(self, processes: ProcessGroup = ALONE) -> Reading:
        """The means so far, over all of these processes, each of which asks. Waits for the device."""
        own = (self._names, [] if self._sums is None else self._sums.tolist(), self.images, self._classifies)
        parts = [part for part in processes.all_gather(own) if part[1]]  # a process may have had nothing to do
        names, _, _, classifies = parts[0]
        sums = [math.fsum(column) for column in zip(*(part[1] for part in parts), strict=True)]
        images = sum(part[2] for part in parts)
        means = {name: value / images for name, value in zip(names, sums, strict=False)}
        top1 = sums[-1] / images if classifies else None
        return Reading(images, {n: v for n, v in means.items() if n != "total"}, means["total"], top1)

    def state_dict(self) -> dict[str, Any]:
        """What an interrupted epoch needs to go on."""
        return {
            "names": list(self._names),
            "sums": None if self._sums is None else self._sums.cpu(),
            "classifies": self._classifies,
            "images": self.images,
        }

    def absorb(self, state: dict[str, Any]) -> None:
        """Adds what another tally had counted, as its `state_dict` says."""
        if state["sums"] is None:
            return
        sums = state["sums"].to(self._device)
        self._names, self._classifies = tuple(state["names"]), state["classifies"]
        self._sums = sums if self._sums is None else self._sums + sums
        self.images += state["images"]
