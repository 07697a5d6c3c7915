"""The modules of knowledge review: deep features of the student are fused into its shallow ones, level by level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillctl import LenientBatchNorm2d

Size = tuple[int, int]


class Fusion(nn.Module):
    """ABF, attention based fusion: one level's features and the fused features of the next deeper level, weighed at every position.

        x = BN(conv1×1(f)),    r = resize(g_1 · x + g_2 · resize(deeper)),    g = σ(conv1×1([x, resize(deeper)])),    out = BN(conv3×3(r))

    f (B, `channels`, h, w) → x, r with `mid` channels → out with `target` channels, for the teacher. `fuse` is False for the
    deepest level, which has nothing to be fused with: r = resize(x). Sizes are changed to the nearest neighbour.
    """

    def __init__(self, channels: int, mid: int, target: int, *, fuse: bool) -> None:
        super().__init__()
        self.reduce = _convolution(channels, mid, 1)
        self.expand = _convolution(mid, target, 3)
        self.gates = nn.Conv2d(2 * mid, 2, 1) if fuse else None

    def forward(self, features: Tensor, deeper: Tensor | None, size: Size) -> tuple[Tensor, Tensor]:
        """The level's output and its fused features, both of the given size (h, w)."""
        fused: Tensor = self.reduce(features)
        if self.gates is not None and deeper is not None:
            deeper = _resize(deeper, (fused.shape[2], fused.shape[3]))
            ours, theirs = self.gates(torch.cat([fused, deeper], dim=1)).sigmoid().split(1, dim=1)
            fused = fused * ours + deeper * theirs
        fused = _resize(fused, size)
        return self.expand(fused), fused


class Review(nn.Module):
    """The levels of a student, each fused with all that are deeper.

    channels: of every level, shallow to deep, for student and teacher.
    mid: channels of the fused features.
    """

    def __init__(self, channels: Sequence[tuple[int, int]], mid: int) -> None:
        super().__init__()
        last = len(channels) - 1
        self.levels = nn.ModuleList(Fusion(ours, mid, theirs, fuse=k < last) for k, (ours, theirs) in enumerate(channels))

    def forward(self, features: Sequence[Tensor], sizes: Sequence[Size]) -> list[Tensor]:
        """The student's maps, shallow to deep → the same number of maps, with the teacher's channels and the given sizes."""
        outputs: list[Tensor] = []
        fused: Tensor | None = None
        for level, value, size in reversed(list(zip(self.levels, features, sizes, strict=True))):
            output, fused = level(value, fused, size)
            outputs.append(output)
        return outputs[::-1]


def _convolution(channels: int, out: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    return nn.Sequential(convolution, LenientBatchNorm2d(out))


def _resize(value: Tensor, size: Size) -> Tensor:
    return value if value.shape[2:] == size else F.interpolate(value, size=size, mode="nearest")
