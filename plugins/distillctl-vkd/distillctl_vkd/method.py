"""`vkd`: the student's pooled feature, turned by an orthogonal matrix, shall be the teacher's normalised one.

    L = mean_{B,d} smooth_l1(P·g_s − LN(g_t)),    PᵀP = I, or PPᵀ = I where the student's feature is the longer one

g_s (B, d_s), g_t (B, d_t): `student[student_stage]`, `teacher[teacher_stage]`, averaged over positions if they are maps or tokens; the
teacher's detached. P (d_t, d_s): `projection`, trained with the student. LN: to mean 0 and variance 1 over the d_t features of a sample.
Miles, Elezi, Deng, "VkD: Improving Knowledge Distillation using Orthogonal Projections", CVPR 2024, arXiv 2403.06213.

An orthogonal P keeps lengths and angles, so that it cannot learn what the student should: how samples lie to each other. LN is the paper's
normalisation for classification; it whitens the teacher's features for tasks that generate images, which is not included.

Where we differ: P is Cayley's map of its parameters and not a product of reflections, see `modules.py`. The paper's runs add `kd` on a
second head of the student, DeiT's distillation token; here it may stand beside as a method of its own.
"""

from __future__ import annotations

from torch import Tensor

from distillctl import Batch, Features, Method, Progress, RunError, Setup, Side, Wants
from distillctl_vkd.losses import as_vectors, vkd_loss
from distillctl_vkd.modules import orthogonal_projection
from distillctl_vkd.options import VkDOptions


class VkD(Method):
    """Mean over samples and features of smooth_l1(P·g_s − LN(g_t)), arXiv 2403.06213. One term.

    Feeding a batch twice leaves the value as it is, and so does a positive affine map of all features of the teacher's sample, up to LN's
    ε of 1e-5. State dict: the projection.

    Raises:
        RunError: a feature is neither a vector (d,) nor tokens (N, d) nor a map (C, H, W), or the teacher's has length 1.
    """

    def __init__(self, options: VkDOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        self.student_stage, self.teacher_stage = options.student_stage, options.teacher_stage
        teacher = setup.require_teacher()
        width = vector_length(teacher, options.teacher_stage)
        if width == 1:
            raise RunError(
                f"`vkd` normalises the features of each sample, but `{options.teacher_stage}` of `{teacher.name}` has only one: always 0",
                hint="name another feature in `teacher_stage`",
            )
        self.projection = orthogonal_projection(vector_length(setup.student, options.student_stage), width)

    @classmethod
    def wants(cls, options: VkDOptions) -> Wants:
        """One feature of each side."""
        return Wants(student=(options.student_stage,), teacher=(options.teacher_stage,))

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The unweighted loss, 0-dim."""
        return vkd_loss(self.projection(as_vectors(student[self.student_stage])), as_vectors(teacher[self.teacher_stage].detach()))


def vector_length(side: Side, name: str) -> int:
    """Length of a feature as `as_vectors` gives it: d of a vector (d,) or of tokens (N, d), C of a map (C, H, W).

    Raises:
        RunError: it is none of them.
    """
    shape = side.shapes[name]
    if not 1 <= len(shape) <= 3:
        raise RunError(
            f"`vkd` needs a vector (d,), tokens (N, d) or a feature map (C, H, W), but `{name}` of `{side.name}` has shape {shape}",
            hint="`pooled`, what the classifier receives, is one of them for most models",
        )
    return shape[1] if len(shape) == 2 else shape[0]
