"""The distance of a projected map and the teacher's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def projection_loss(projected: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference over all elements, 0-dim.

    projected: (B, C, H, W). teacher: (B, C, H', W'), averaged to H × W where it is of another size.
    """
    if teacher.shape[2:] != projected.shape[2:]:
        teacher = F.adaptive_avg_pool2d(teacher, (projected.shape[2], projected.shape[3]))
    return F.mse_loss(projected, teacher)
