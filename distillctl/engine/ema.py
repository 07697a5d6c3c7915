"""An exponential moving average of the student's weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn


class ModelEMA:
    """Keeps e ← d·e + (1 − d)·θ for every floating entry of the state dict, BatchNorm statistics included.

    model: whose weights it follows; they stay the tensors that they are. The average has a model of its own.
    decay: the limit of d.
    ramp: d(n) = decay·(1 − exp(−n/ramp)) after n updates; 0 keeps d constant.
    """

    def __init__(self, model: nn.Module, decay: float, ramp: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.ramp = ramp
        self.updates = 0
        self._source = model
        source = model.state_dict()
        pairs = [(mine, source[name]) for name, mine in self.model.state_dict().items() if mine.is_floating_point()]
        self.tensors, self._sources = [a for a, _ in pairs], [b for _, b in pairs]

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights after one optimizer step."""
        self.updates += 1
        decay = self.decay * (1 - math.exp(-self.updates / self.ramp)) if self.ramp > 0 else self.decay
        torch._foreach_lerp_(self.tensors, self._sources, 1 - decay)

    def restart(self) -> None:
        """Begins anew from the weights as they are now."""
        self.model.load_state_dict(self._source.state_dict())
        self.updates = 0

    def state_dict(self) -> dict[str, object]:
        """Weights and the number of updates."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """The inverse of `state_dict`."""
        weights: dict[str, Tensor] = state["model"]  # type: ignore[assignment]
        self.model.load_state_dict(weights)
        self.updates = int(state["updates"])  # type: ignore[call-overload]
