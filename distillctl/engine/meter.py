"""Sums of an epoch of training that stay on the device until somebody reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distillctl.distributed.process_group import ALONE, ProcessGroup
from distillctl.errors import RunError

_TOTAL = "total"


@dataclass(frozen=True)
class Reading:
    """Means over the images of an epoch so far.

    terms: every unweighted loss term by name.
    total: the weighted sum.
    figures: of the student while it learnt, on images as augmented; empty where it was not trained for its task.
    """

    images: int
    terms: dict[str, float]
    total: float
    figures: dict[str, float]


class TrainingMeter:
    """Adds up an epoch's terms and figures in float64 on the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._names: tuple[str, ...] = ()  # of the terms and their total
        self._figures: tuple[str, ...] = ()
        self._sums: Tensor | None = None
        self.images = 0

    def add(self, images: int, total: Tensor, terms: Mapping[str, Tensor], figures: Mapping[str, Tensor] | None) -> None:
        """Takes in one batch: means of its terms, sums of its figures. Does not wait for the device."""
        names, figures = (*terms, _TOTAL), figures or {}
        losses = torch.stack([*(t.detach() for t in terms.values()), total.detach()]).double()
        values = torch.cat([losses * images, *(figure.detach().double()[None] for figure in figures.values())])
        if self._sums is None or (len(self._sums) != len(values) and not self.images):
            self._sums = torch.zeros_like(values)
        if not self.images:
            self._names, self._figures = names, tuple(figures)
        elif (names, tuple(figures)) != (self._names, self._figures):
            raise RunError(f"the loss terms changed in the middle of an epoch: {', '.join(self._names)} became {', '.join(names)}")
        self._sums += values
        self.images += images

    def restart(self) -> None:
        """Begins anew, in the memory that it has: a captured step adds to it."""
        if self._sums is not None:
            self._sums.zero_()
        self.images = 0

    def read(self, processes: ProcessGroup = ALONE) -> Reading:
        """The means so far, over all of these processes, each of which asks. Waits for the device."""
        own = (self._names, self._figures, [] if self._sums is None else self._sums.tolist(), self.images)
        parts = [part for part in processes.all_gather(own) if part[3]]  # a process may have had nothing to do
        names, figures = parts[0][:2]
        images = sum(part[3] for part in parts)
        means = [math.fsum(column) / images for column in zip(*(part[2] for part in parts), strict=True)]
        terms = dict(zip(names, means, strict=False))
        total = terms.pop(_TOTAL)
        return Reading(images, terms, total, dict(zip(figures, means[len(names) :], strict=True)))

    def state_dict(self) -> dict[str, Any]:
        """What an interrupted epoch needs to go on."""
        return {
            "names": list(self._names),
            "figures": list(self._figures),
            "sums": None if self._sums is None else self._sums.cpu(),
            "images": self.images,
        }

    def absorb(self, state: dict[str, Any]) -> None:
        """Adds what another meter had counted, as its `state_dict` says."""
        if state["sums"] is None:
            return
        sums = state["sums"].to(self._device)
        self._names, self._figures = tuple(state["names"]), tuple(state["figures"])
        if self._sums is None or len(self._sums) != len(sums):
            self._sums = torch.zeros_like(sums)
        self._sums += sums
        self.images += state["images"]
