"""`rkd`: two samples shall be as far apart, and three form the same angles, as they do for the teacher.

    L = λ_d · 1/B² · Σ_ij h(d_s,ij − d_t,ij) + λ_a · 1/B³ · Σ_ijk h(c_s,ijk − c_t,ijk)
    d_ij = D_ij / mean D,    D_ij = ‖p_i − p_j‖,    c_ijk = ⟨e_ij, e_ik⟩,    e_ij = (p_i − p_j)/D_ij

p (B, d): `student[student_stage]`, `teacher[teacher_stage]`, flattened; the teacher's detached. h: ½x² within ±1, |x| − ½ outside.
The mean is over all pairs of two samples; the student's passes a gradient. λ_d, λ_a: `distance_weight`, `angle_weight`.
Park, Kim, Lu, Cho, CVPR 2019, arXiv 1904.05068.

The widths of the two features are free. Pairs and triples of one sample with itself (i = j, i = k) count as zeros on both sides.

Where we differ: distances are taken about the centre of the batch, where float32 loses fewest digits; between equal samples no gradient
flows; `chunk` bounds the memory, which is B²·d and B³ floats else.
"""

from __future__ import annotations

from torch import Tensor

from distillctl import Batch, Features, Method, Progress, RunError, Setup, Wants
from distillctl_rkd.losses import angle_loss, distance_loss
from distillctl_rkd.options import RKDOptions


class RKD(Method):
    """λ_d times the mean over B² on distances, and λ_a times the mean over B³ on angles, arXiv 1904.05068. Terms: `distance`, `angle`.

    Reduction: means over all pairs and triples of samples, those of a sample with itself included, so that the values depend on the
    batch. B counts the images that are compared: of several processes this one's share, with `gather` all. A batch of 1 gives 0. Both are
    zero where the student's features are the teacher's up to a rotation, a shift and a factor. A part whose factor is 0 is not computed.

    Raises:
        RunError: both factors are 0.
    """

    def __init__(self, options: RKDOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        if options.distance_weight == options.angle_weight == 0:
            raise RunError(
                "`rkd` has nothing to learn from with `distance_weight` and `angle_weight` both 0",
                hint="for a student without a teacher: `none`",
            )
        self.options = options

    @classmethod
    def wants(cls, options: RKDOptions) -> Wants:
        """One feature of each side."""
        return Wants(student=(options.student_stage,), teacher=(options.teacher_stage,))

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> dict[str, Tensor]:
        """The terms, 0-dim, λ_d and λ_a included."""
        options = self.options
        ours, theirs = student[options.student_stage], teacher[options.teacher_stage].detach()
        terms = {}
        if options.distance_weight:
            terms["distance"] = options.distance_weight * distance_loss(ours, theirs, squared=options.squared, eps=options.eps)
        if options.angle_weight:
            terms["angle"] = options.angle_weight * angle_loss(ours, theirs, chunk=options.chunk)
        return terms
