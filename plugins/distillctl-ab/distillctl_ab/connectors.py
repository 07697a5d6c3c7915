"""Brings a map of the student into the shape of the teacher's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ConnectorNorm(nn.BatchNorm2d):
    """Batch normalisation that takes its running statistics for a batch with one value a channel, which has no variance."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of the base class
        if input.shape[0] * input.shape[2] * input.shape[3] == 1:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(input)


def connector(student: tuple[int, int, int], teacher: tuple[int, int, int]) -> nn.Module:
    """Nothing for equal shapes (C, H, W), else FitNet's regressor without its ReLU: a convolution and batch normalisation.

    The convolution is chosen by the sizes: 3×3 with stride 2 where the student's are twice the teacher's, a transposed 4×4 with stride 2
    where they are half of them, a kernel that leaves the teacher's size where they are at least as large, and otherwise 3×3
    with the student's size. It has no bias: the normalisation after it would take it away.
    """
    if student == teacher:
        return nn.Identity()
    return nn.Sequential(_convolution(student, teacher), ConnectorNorm(teacher[0]))


def _convolution(student: tuple[int, int, int], teacher: tuple[int, int, int]) -> nn.Module:
    inputs, *ours = student
    outputs, *theirs = teacher
    sizes = list(zip(ours, theirs, strict=True))
    if all(s == 2 * t for s, t in sizes):
        return nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    if all(2 * s == t for s, t in sizes):
        return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
    if all(s >= t for s, t in sizes):
        height, width = (1 + s - t for s, t in sizes)
        return nn.Conv2d(inputs, outputs, (height, width), bias=False)
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
