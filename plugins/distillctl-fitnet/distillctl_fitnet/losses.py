"""The loss of `fitnet`, as a function of tensors."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distillctl import match_size


def hint_loss(regressed: Tensor, hint: Tensor) -> Tensor:
    """Mean over all elements of the squared difference of two maps (B, C, H, W), 0-dim; the larger one is average-pooled first."""
    regressed, hint = match_size(regressed, hint)
    return F.mse_loss(regressed, hint)
