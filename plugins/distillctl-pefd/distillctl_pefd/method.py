"""`pefd`: several projections of the student's feature, averaged, shall point where the teacher's feature points.

    L = mean_B (1 − cos(h, p_t)),    h = 1/q · Σ_k ReLU(W_k·p_s + b_k)

p_s (B, d_s), p_t (B, d_t): `student[student_stage]`, `teacher[teacher_stage]`, averaged over the positions if they are maps; the teacher's
detached. W_k, b_k: rows k·d_t … (k + 1)·d_t − 1 of `projectors`, one linear layer with q·d_t outputs, so that the q projections are one
matrix product. Its start depends on the number of its inputs alone: it is that of q layers drawn independently.
Chen, Wang, Liu, Xu, de Hoog, Huang, NeurIPS 2022, arXiv 2210.15274.

The projectors differ by their random start only; that they do is what the ensemble lives on. They are there even if d_s = d_t: without
them the student's own feature would have to serve the classifier and the teacher at once.

Where we differ: the authors' code divides by lengths that may be 0; here a vector of zeros is left as it is.
"""

from __future__ import annotations

from torch import Tensor, nn

from distillctl import Batch, Features, Method, Progress, RunError, Setup, Side, Wants
from distillctl_pefd.losses import ensemble_loss
from distillctl_pefd.options import PEFDOptions


class PEFD(Method):
    """Mean over the batch of 1 − cos(h, p_t), arXiv 2210.15274. One term, in [0, 1] if p_t has no negative values.

    Feeding a batch twice leaves the value as it is, and so does scaling p_t. Zero where h and p_t have one direction. State dict: the
    projectors.

    Raises:
        RunError: a feature is neither a vector (d,) nor a map (C, H, W).
    """

    def __init__(self, options: PEFDOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        self.student_stage, self.teacher_stage = options.student_stage, options.teacher_stage
        self.count = options.projectors
        self.width = vector_length(setup.require_teacher(), options.teacher_stage)
        self.projectors = nn.Linear(vector_length(setup.student, options.student_stage), self.count * self.width)

    @classmethod
    def wants(cls, options: PEFDOptions) -> Wants:
        """One feature of each side."""
        return Wants(student=(options.student_stage,), teacher=(options.teacher_stage,))

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The unweighted loss, 0-dim."""
        projected = self.projectors(as_vectors(student[self.student_stage])).unflatten(1, (self.count, self.width))
        return ensemble_loss(projected, as_vectors(teacher[self.teacher_stage].detach()))


def as_vectors(feature: Tensor) -> Tensor:
    """(B, d) as it is; (B, C, H, W) → (B, C), averaged over the positions."""
    return feature.mean((2, 3)) if feature.ndim == 4 else feature


def vector_length(side: Side, name: str) -> int:
    """Length of a feature as `as_vectors` gives it: d of a vector (d,), C of a map (C, H, W).

    Raises:
        RunError: it is neither.
    """
    shape = side.shapes[name]
    if len(shape) not in (1, 3):
        raise RunError(
            f"`pefd` needs a vector (d,) or a feature map (C, H, W), but `{name}` of `{side.name}` has shape {shape}",
            hint="`pooled`, what the classifier receives, is one of the two for most models",
        )
    return shape[0]
