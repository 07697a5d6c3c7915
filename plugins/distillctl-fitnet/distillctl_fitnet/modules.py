"""The regressor: one convolution that brings the student's map to the size of the teacher's, normalised."""

from __future__ import annotations

from torch import Tensor, nn

from distillctl import LenientBatchNorm2d, matching_convolution

Shape = tuple[int, int, int]


class Regressor(nn.Module):
    """Convolution, batch normalisation, and ReLU if `relu`: (B, *student) → (B, *teacher).

    student, teacher: shapes (C, H, W). Where the last row of the table of `matching_convolution` applies, H and W remain the student's.
    """

    def __init__(self, student: Shape, teacher: Shape, relu: bool) -> None:
        super().__init__()
        self.conv = matching_convolution(student, teacher)
        self.norm = LenientBatchNorm2d(teacher[0])
        self.activation = nn.ReLU() if relu else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """The regressed map."""
        result: Tensor = self.activation(self.norm(self.conv(maps)))
        return result
