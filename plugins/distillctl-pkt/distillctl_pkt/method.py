"""`pkt`: a sample shall choose its neighbours in the batch with the probabilities that the teacher's features give.

    L = 1/B² · Σ_ij P_t,ij · log((P_t,ij + eps)/(P_s,ij + eps)),    P_ij = S_ij / Σ_k S_ik,    S_ij = (cos(p_i, p_j) + 1)/2

p (B, d): `student[student_stage]`, `teacher[teacher_stage]`, flattened; the teacher's detached.
Passalis, Tefas, ECCV 2018, arXiv 1803.10837.

The widths of the two features are free. A sample is among its own neighbours, with S_ii = 1.

Where we differ: a feature of zeros is left as it is instead of being divided by a small number plus its length, whose gradient is NaN
there; S is kept from falling below 0 by rounding instead of replacing NaN afterwards.
"""

from __future__ import annotations

from torch import Tensor

from distillctl import Batch, Features, Method, Progress, Setup, Wants
from distillctl_pkt.losses import pkt_loss
from distillctl_pkt.options import PKTOptions


class PKT(Method):
    """Mean over B² of P_t · log((P_t + eps)/(P_s + eps)), arXiv 1803.10837. One term.

    Reduction: mean over all pairs of samples. P sums to 1 in each row, so that feeding a batch twice halves the value, and the right
    weight grows with B. B counts the images that are compared: of several processes this one's share, with `gather` all. A batch of 1
    gives 0.
    """

    def __init__(self, options: PKTOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        self.student_stage, self.teacher_stage = options.student_stage, options.teacher_stage
        self.eps = options.eps

    @classmethod
    def wants(cls, options: PKTOptions) -> Wants:
        """One feature of each side."""
        return Wants(student=(options.student_stage,), teacher=(options.teacher_stage,))

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The unweighted loss, 0-dim."""
        return pkt_loss(student[self.student_stage], teacher[self.teacher_stage].detach(), self.eps)
