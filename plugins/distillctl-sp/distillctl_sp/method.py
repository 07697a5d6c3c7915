"""`sp`: two samples of a batch that are similar for the teacher shall be similar for the student.

    L = Σ_stages 1/B² · ‖G_t − G_s‖²_F,    G = N(F·Fᵀ)

F (B, C·H·W): a feature of `student` or `teacher`, flattened; the teacher's detached. N: divides each row of a matrix (B, B) by its
length, or with `row_norm = "l1"` by the sum of its absolute values.
Tung, Mori, ICCV 2019, arXiv 1907.09682.

Only similarities of samples are compared, so that width and size of the features are free on either side.

Where we differ: a sample whose feature is all zeros has a row of zeros that no gradient passes; a batch of one sample gives 0;
everything is in float32, since in float16 the entries of F·Fᵀ soon exceed what it can hold.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distillctl import Batch, Features, Method, Progress, Setup, Wants, pair_stages
from distillctl_sp.losses import sp_loss
from distillctl_sp.options import SPOptions


class SP(Method):
    """Σ_stages 1/B² · ‖N(F_t·F_tᵀ) − N(F_s·F_sᵀ)‖²_F, arXiv 1907.09682. One term, of at most 4/B a stage.

    Reduction: sum over all pairs of samples, divided by B². Each row has length 1 whatever B is, so that feeding a batch twice halves
    the value (with `row_norm = "l1"`, quarters it), and the right weight grows with B. B counts the images that are
    compared: of several processes this one's share, with `gather` all. A batch of 1 gives 0.

    Raises:
        RunError: the stages cannot be paired.
    """

    def __init__(self, options: SPOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        self.row_norm = options.row_norm
        self.pairs = pair_stages("sp", setup.student, setup.require_teacher(), options.student_stages, options.teacher_stages)

    @classmethod
    def wants(cls, options: SPOptions) -> Wants:
        """The features whose similarities are compared."""
        return Wants(student=tuple(options.student_stages), teacher=tuple(options.teacher_stages))

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The unweighted loss, 0-dim."""
        return torch.stack([sp_loss(student[ours], teacher[theirs].detach(), self.row_norm) for ours, theirs in self.pairs]).sum()
