"""Brings a map of the student into the shape of the teacher's."""

from __future__ import annotations

from torch import nn

from distillctl import LenientBatchNorm2d, matching_convolution


def connector(student: tuple[int, int, int], teacher: tuple[int, int, int]) -> nn.Module:
    """Nothing for equal shapes (C, H, W), else FitNet's regressor without its ReLU: a convolution and batch normalisation.

    The convolution is chosen by the sizes: 3×3 with stride 2 where the student's are twice the teacher's, a transposed 4×4 with stride 2
    where they are half of them, a kernel that leaves the teacher's size where they are at least as large, and otherwise 3×3
    with the student's size. It has no bias: the normalisation after it would take it away.
    """
    if student == teacher:
        return nn.Identity()
    return nn.Sequential(matching_convolution(student, teacher), LenientBatchNorm2d(teacher[0]))
