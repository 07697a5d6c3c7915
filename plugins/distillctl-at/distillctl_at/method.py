"""`at`: each stage of the student is active where the teacher's is.

    L = Σ_stages mean_{B,h,w} (A_s − A_t)²,    A(f) = a / ‖a‖₂,  a = mean_c |f|^p of each image, (B, h·w)

f_s → `student[STAGE]` (B, C_s, H_s, W_s); f_t → `teacher[STAGE]` (B, C_t, H_t, W_t), detached; p → `power`. Where the sizes differ,
the larger map is average-pooled to the smaller one. Stages are paired by name, or from the deepest one on (`pair_stages`); the stem is
not one of them.

Zagoruyko, Komodakis, "Paying More Attention to Attention", ICLR 2017, arXiv 1612.03928.

Where we differ: the paper writes ‖A_s − A_t‖₂ and its code takes the mean of the squares; `mode` has both, the code's by default.
Activations are divided by each image's largest before they are raised to p, which changes no value and lets none overflow. Their sign is
taken away first, so that an odd p makes sense where a map can be negative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distillctl import Batch, Features, Method, Progress, Setup, Wants, pair_stages, require_positions
from distillctl_at.losses import at_loss
from distillctl_at.options import ATOptions


class AT(Method):
    """Σ_stages mean_{B,h,w} (A_s − A_t)² with A the normalised mean_c |f|^p, arXiv 1612.03928. One term.

    Reduction: mean over images and positions, sum over the pairs of stages; with `mode = "paper"` mean over images of the L2 norm, sum over
    the pairs. Feeding a batch twice leaves the value as it is. The scale of a map and the order of its channels do not matter.

    Raises:
        RunError: a stage is not a feature map, or no pair of stages has more than one position to compare.
    """

    def __init__(self, options: ATOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        self.power = options.power
        self.mode = options.mode
        student, teacher = setup.student, setup.require_teacher()
        self.pairs = pair_stages("at", student, teacher, options.student_stages, options.teacher_stages)
        require_positions("at", student, teacher, self.pairs, "compares positions, but only one is left")

    @classmethod
    def wants(cls, options: ATOptions) -> Wants:
        """The stages of both sides."""
        return Wants(student=tuple(options.student_stages), teacher=tuple(options.teacher_stages))

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The term, 0-dim."""
        losses = [at_loss(student[ours], teacher[theirs].detach(), power=self.power, mode=self.mode) for ours, theirs in self.pairs]
        return torch.stack(losses).sum()
