"""The regressor: one convolution that brings the student's map to the size of the teacher's, normalised.

| student's map (H_s, W_s), teacher's (H_t, W_t) | convolution |
| --- | --- |
| twice as high and wide | 3×3, stride 2, padding 1 |
| half as high and wide | transposed 4×4, stride 2, padding 1 |
| at least as high and wide | (1 + H_s − H_t) × (1 + W_s − W_t); 1×1 for equal sizes |
| anything else | 3×3, padding 1: the map keeps its size, and what is larger has to be pooled |

The convolutions have no bias: the normalisation subtracts the mean of every channel, and with it any bias.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

Shape = tuple[int, int, int]


class Regressor(nn.Module):
    """Convolution, batch normalisation, and ReLU if `relu`: (B, *student) → (B, *teacher).

    student, teacher: shapes (C, H, W). Where the last row of the module's table applies, H and W remain the student's.
    """

    def __init__(self, student: Shape, teacher: Shape, relu: bool) -> None:
        super().__init__()
        self.conv = convolution(student, teacher)
        self.norm = BatchNorm(teacher[0])
        self.activation = nn.ReLU() if relu else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """The regressed map."""
        result: Tensor = self.activation(self.norm(self.conv(maps)))
        return result


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that takes one image with a map of 1×1 too.

    A single value per channel has no variance; it is normalised by the running statistics, which it does not change.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # the base has this name
        """(B, C, H, W) → (B, C, H, W)."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


def convolution(student: Shape, teacher: Shape) -> nn.Conv2d | nn.ConvTranspose2d:
    """The convolution of the module's table for shapes (C, H, W)."""
    (channels, height, width), (wanted, to_height, to_width) = student, teacher
    if (height, width) == (2 * to_height, 2 * to_width):
        return nn.Conv2d(channels, wanted, 3, stride=2, padding=1, bias=False)
    if (2 * height, 2 * width) == (to_height, to_width):
        return nn.ConvTranspose2d(channels, wanted, 4, stride=2, padding=1, bias=False)
    if height >= to_height and width >= to_width:
        return nn.Conv2d(channels, wanted, (1 + height - to_height, 1 + width - to_width), bias=False)
    return nn.Conv2d(channels, wanted, 3, padding=1, bias=False)
