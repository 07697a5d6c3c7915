"""The network that chooses a temperature for every sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Predictor(nn.Module):
    """MLP(z_t, z_s): the logits of both sides (B, C), side by side, a hidden layer with ReLU, and one number θ for each sample, (B, 1).

    Its last layer starts with weights 0 and bias `start`, so that at first all samples have the same θ.
    """

    def __init__(self, num_classes: int, hidden: int, start: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * num_classes, hidden)
        self.out = nn.Linear(hidden, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.constant_(self.out.bias, start)

    def forward(self, teacher: Tensor, student: Tensor) -> Tensor:
        """θ, (B, 1). No gradient flows into the logits."""
        theta: Tensor = self.out(self.hidden(torch.cat([teacher.detach(), student.detach()], 1)).relu())
        return theta
