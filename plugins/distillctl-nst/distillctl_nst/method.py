"""`nst`: the channels of each stage of the student respond to the same set of spatial patterns as the teacher's.

    L = Σ_stages mean_B [ mean_{i,i'} k(s_i, s_i') + mean_{j,j'} k(t_j, t_j') − 2 mean_{i,j} k(s_i, t_j) ]

s_i, t_j (h·w): the channels of `student[STAGE]` (B, C_s, H_s, W_s) and of `teacher[STAGE]` (B, C_t, H_t, W_t), detached, each divided by
its L2 norm over the positions; k → `kernel`, (a·b)² by default; σ² → `bandwidth`. Where the sizes differ, the larger map is
average-pooled to the smaller one. Stages are paired by name, or from the deepest one on (`pair_stages`).

Huang, Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer", 2017, arXiv 1707.01219.

Where we differ: the benchmarks multiply all pairs of channels position by position, a tensor (B, C, C, h·w). Here the products a·b are a
matrix product, (B, C, C); with fewer positions than channels, the distance of the second moments (B, h·w, h·w), which is the same number.
A dead channel is a zero vector without a gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distillctl import Batch, Features, Method, Progress, Setup, Wants, pair_stages, require_positions
from distillctl_nst.losses import nst_loss
from distillctl_nst.options import NSTOptions


class NST(Method):
    """Σ_stages of the squared maximum mean discrepancy of the channels' patterns, arXiv 1707.01219. One term.

    Reduction: mean over images and over the pairs of channels, sum over the pairs of stages. Feeding a batch twice leaves the value as it
    is. It is at least 0, and 0 where the channels are the same up to their order and each one's positive scale (`poly`: also its sign).

    Raises:
        RunError: a stage is not a feature map, or no pair of stages has more than one position to compare.
    """

    def __init__(self, options: NSTOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        self.kernel = options.kernel
        self.bandwidth = None if options.bandwidth == "mean" else options.bandwidth
        student, teacher = setup.student, setup.require_teacher()
        self.pairs = pair_stages("nst", student, teacher, options.student_stages, options.teacher_stages)
        require_positions("nst", student, teacher, self.pairs, "compares patterns of positions, but only one position is left")

    @classmethod
    def wants(cls, options: NSTOptions) -> Wants:
        """The stages of both sides."""
        return Wants(student=tuple(options.student_stages), teacher=tuple(options.teacher_stages))

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The term, 0-dim."""
        losses = [
            nst_loss(student[ours], teacher[theirs].detach(), kernel=self.kernel, bandwidth=self.bandwidth) for ours, theirs in self.pairs
        ]
        return torch.stack(losses).sum()
