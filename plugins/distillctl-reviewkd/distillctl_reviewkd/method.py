"""Knowledge review: what the student sees deep is fused into what it sees before, and each level has to match the teacher.

    L = Σ_k HCL(o_k, f_t,k),    (o_k, r_k) = ABF_k(f_s,k, r_k+1),    HCL(a, b) = Σ_l w_l · mean (pool_l(a) − pool_l(b))²

k: levels, the paired stages and the pooled vector as a 1×1 map, reviewed from deep to shallow; f_s,k → `student` (B, C_s,k, h, w);
f_t,k → `teacher` (B, C_t,k, H, W), detached; ABF → `Fusion`, r_k its fused features, o_k its output of the shape of f_t,k;
pool_l → the map itself, then averages over l×l cells, l = 4, 2, 1 < H, W; w_l: 1, ½, ¼, ⅛ divided by their sum (`losses.hcl`).

Chen, Liu, Zhao, Jia, "Distilling Knowledge via Knowledge Review", CVPR 2021, arXiv 2104.09044.

Where we differ: all channels and sizes are measured. The authors' code for CIFAR-100 runs the teacher in training mode; that is
`teacher_norm = "batch"`, without a change to the teacher. A batch of one image (`batch_size = 1`) works.
"""

from __future__ import annotations

from math import prod

from torch import Tensor

from distillctl import Batch, Features, Method, Progress, Setup, Side, Wants, fp32, input_of, pair_stages, widen
from distillctl_reviewkd.losses import review_loss
from distillctl_reviewkd.modules import Review
from distillctl_reviewkd.options import ReviewKDOptions

_POOLED = "pooled"


class ReviewKD(Method):
    """Σ over levels of the hierarchical context loss between fused student features and the teacher's, arXiv 2104.09044.

    Reduction: mean over batch, channels and positions at each scale, weighted mean over scales, sum over levels. One term. Feeding a
    batch twice leaves the value as it is. The fusing modules normalise over the batch.

    Raises:
        RunError: a stage is not a feature map (C, H, W), or the named stages are not equally many.
    """

    # The 3×3 convolutions may be several times the student's work, where 512 fused channels meet a map of 56×56.
    autocast = True

    def __init__(self, options: ReviewKDOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        sides = setup.student, setup.require_teacher()
        stages = pair_stages("reviewkd", *sides, options.student_stages, options.teacher_stages)
        channels = [(_stage_channels(sides[0], ours), _stage_channels(sides[1], theirs)) for ours, theirs in stages]
        if options.pooled:
            stages = (*stages, (_POOLED, _POOLED))
            channels.append((prod(sides[0].shapes[_POOLED]), prod(sides[1].shapes[_POOLED])))
        self.pairs = stages
        deepest = channels[-1][0]
        if options.mid_channels > deepest and options.mid_channels != type(options).model_fields["mid_channels"].default:
            self.notes = (f"`reviewkd`: `mid_channels = {options.mid_channels}` acts as {deepest}, what the student's deepest level has",)
        self.review = Review(channels, min(options.mid_channels, deepest))

    @classmethod
    def wants(cls, options: ReviewKDOptions) -> Wants:
        """The stages of both sides, and the pooled vectors."""
        pooled = (_POOLED,) if options.pooled else ()
        return Wants(
            student=(*options.student_stages, *pooled),
            teacher=(*options.teacher_stages, *pooled),
            teacher_norm=options.teacher_norm,
        )

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The unweighted loss, 0-dim, float32 (float64 for float64 features)."""
        ours = [_as_map(student, name) for name, _ in self.pairs]
        theirs = [_as_map(teacher, name).detach() for _, name in self.pairs]
        outputs = self.review([input_of(self.review, value) for value in ours], [(value.shape[2], value.shape[3]) for value in theirs])
        with fp32(ours[0].device):
            return review_loss([widen(value) for value in outputs], [widen(value) for value in theirs])


def _stage_channels(side: Side, name: str) -> int:
    return side.feature_map(name, "reviewkd")[0]


def _as_map(features: Features, name: str) -> Tensor:
    """A feature as (B, C, H, W); what the classifier receives as (B, d, 1, 1)."""
    value = features[name]
    return value.flatten(1)[:, :, None, None] if name == _POOLED else value
