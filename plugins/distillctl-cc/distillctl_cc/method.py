"""`cc`: the samples of a batch shall correlate with each other for the student as they do for the teacher.

    e_s = W_s·p_s + b_s,    e_t = W_t·p_t + b_t
    repdistiller: L = 1/(B − 1) · Σ_{i<B} Σ_c δ_i,c · δ_{i+1},c,    δ = |e_s − e_t|
    kernel:       L = 1/B² · ‖K_s − K_t‖²_F,    K_ij = exp(−2γ) · Σ_{p≤P} (2γ)^p/p! · ⟨N(e_i), N(e_j)⟩^p

p (B, d): `student[student_stage]`, `teacher[teacher_stage]`, flattened; the teacher's detached. W, b: `embed_student`, `embed_teacher`,
both trained, to `feat_dim` numbers; with `feat_dim = 0`, and for `kernel` always, e = p. N: length 1. γ, P: `gamma`, `order`.
Peng, Jin, Liu, Zhou, Wu, Liu, Li, Zhang, ICCV 2019, arXiv 1904.01802.

`kernel` is the paper's: K is a Gaussian kernel up to the power P of its Taylor series. `repdistiller` is what the benchmark's published
figures of CC stand for: not a correlation, but the products of the errors of samples that happen to be neighbours in the batch.

Where the teacher's embedding is trained too, there is a minimum that teaches nothing: two embeddings that are the same constant. `kernel`
would train both embeddings towards it, so it has none.

Where we differ: a batch of one sample gives 0 and not NaN; embeddings of zeros stay finite; batches are drawn as for all methods, while
the paper takes several samples of each class.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from distillctl import Batch, Features, Method, Progress, RunError, Setup, Side, Wants
from distillctl_cc.losses import kernel_loss, neighbour_loss
from distillctl_cc.options import CCOptions


class CC(Method):
    """Products of neighbouring errors, or the distance of two kernel matrices, arXiv 1904.01802. One term.

    Reduction: `repdistiller` sums over the embedding and averages over the B − 1 pairs of samples that are neighbours in the batch, so
    that the order of the samples matters; `kernel` is a mean over all B² pairs (not `squared`: the root of the sum, over B²). B counts the
    images that are compared: of several processes this one's share, with `gather` all. A batch of 1 gives 0. State dict: the embeddings.

    Raises:
        RunError: features of unequal width are to be compared themselves by `repdistiller`, or are to be embedded and have another width
            in each batch.
    """

    def __init__(self, options: CCOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        self.options = options
        student, teacher = setup.student, setup.require_teacher()
        ours, theirs = math.prod(student.shapes[options.student_stage]), math.prod(teacher.shapes[options.teacher_stage])
        width = options.embedding
        maps = len(student.shapes[options.student_stage]) > 1 or len(teacher.shapes[options.teacher_stage]) > 1
        if width and maps and setup.unequal:
            raise RunError(
                "`cc` embeds every value of a map, of which each batch has another number where views differ in size",
                hint='choose `variant = "kernel"`, or views of one size',
            )
        if options.variant == "repdistiller" and not width and ours != theirs:
            raise RunError(
                f"`cc` cannot subtract {_said(teacher, options.teacher_stage)} from {_said(student, options.student_stage)}",
                hint='choose `feat_dim` above 0, or `variant = "kernel"`',
            )
        self.embed_student: nn.Module = nn.Linear(ours, width) if width else nn.Identity()
        self.embed_teacher: nn.Module = nn.Linear(theirs, width) if width else nn.Identity()

    @classmethod
    def wants(cls, options: CCOptions) -> Wants:
        """One feature of each side."""
        return Wants(student=(options.student_stage,), teacher=(options.teacher_stage,))

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The unweighted loss, 0-dim."""
        options = self.options
        ours = self.embed_student(student[options.student_stage].flatten(1))
        theirs = self.embed_teacher(teacher[options.teacher_stage].detach().flatten(1))
        if options.variant == "repdistiller":
            return neighbour_loss(ours, theirs)
        return kernel_loss(ours, theirs, options.gamma, options.order, squared=options.squared)


def _said(side: Side, name: str) -> str:
    return f"`{name}` of `{side.name}` of shape {side.shapes[name]}"
