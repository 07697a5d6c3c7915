"""`kdsvd`: how the main singular vectors of a stage relate to those of the stage before.

    L = Σ_{l ≥ 2} mean_B Σ_{i,j,k} (R_s − R_t)²,    R[i, j, k] = exp(−(v^l_ik − v^{l−1}_jk)² / 8)

v^l (B, n, k): right singular vectors of the matrix of stage l, (h·w, c) or (c·h, w) by `variant`; k → `vectors`. The teacher's are its k
main ones times its singular values, which are divided by their norm over k (so for k = 1 times 1). In place of each the student has the
best match among its k + 3 main ones, with the matching sign and the teacher's factor. f_s → `student[STAGE]`, f_t → `teacher[STAGE]`
(B, C, H, W), detached; the larger of two maps is average-pooled to the smaller size. Stages are paired by name, or from the deepest one on
(`pair_stages`).

Lee, Kim, Song, "Self-supervised Knowledge Distillation Using Singular Value Decomposition", ECCV 2018, arXiv 1807.06819.

Where we differ: the gradient of a singular vector is infinite where singular values are equal, as for dead channels; here it is damped
(`losses.right_singular_vectors`). The sign of the teacher's vectors, which the value depends on, is settled and not left to the solver.
Directions that a matrix of low rank does not have are zero vectors in place of arbitrary ones.
"""

from __future__ import annotations

from torch import Tensor

from distillctl import Batch, Features, Method, Progress, RunError, Setup, Side, Wants, pair_stages
from distillctl_kdsvd.losses import kdsvd_loss
from distillctl_kdsvd.options import KDSVDOptions

Shape = tuple[int, int, int]


class KDSVD(Method):
    """Σ_{l ≥ 2} mean_B Σ_{i,j,k} (R_s − R_t)², R = exp(−(v^l_ik − v^{l−1}_jk)² / 8), arXiv 1807.06819. One term.

    Reduction: sum over the entries of the vectors and over consecutive stages, mean over the batch. Feeding a batch twice leaves the value
    as it is. The scale of a map does not matter, nor does the sign of a singular vector.

    Raises:
        RunError: fewer than two pairs of stages, a stage that is not a feature map, unequal channels with `variant = "channels"`, more
            `vectors` than a matrix has, or vectors of one entry alone.
    """

    def __init__(self, options: KDSVDOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        self.variant = options.variant
        self.vectors = options.vectors
        student, teacher = setup.student, setup.require_teacher()
        self.pairs = pair_stages("kdsvd", student, teacher, options.student_stages, options.teacher_stages)
        if len(self.pairs) < 2:
            ours, theirs = self.pairs[0]
            raise RunError(
                f"`kdsvd` relates each stage to the one before, but there is only one: `{ours}` of `{student.name}`, "
                f"`{theirs}` of `{teacher.name}`",
                hint="name at least two stages in `student_stages` and in `teacher_stages`",
            )
        shapes = [(student.feature_map(ours, "kdsvd"), teacher.feature_map(theirs, "kdsvd")) for ours, theirs in self.pairs]
        if options.variant == "channels":
            _require_equal_channels(self.pairs, shapes, student, teacher)
        _require_vectors(self.pairs, shapes, options)

    @classmethod
    def wants(cls, options: KDSVDOptions) -> Wants:
        """The stages of both sides."""
        return Wants(student=tuple(options.student_stages), teacher=tuple(options.teacher_stages))

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The term, 0-dim."""
        ours = [student[name] for name, _ in self.pairs]
        theirs = [teacher[name].detach() for _, name in self.pairs]
        return kdsvd_loss(ours, theirs, variant=self.variant, vectors=self.vectors)


def _require_equal_channels(pairs: tuple[tuple[str, str], ...], shapes: list[tuple[Shape, Shape]], student: Side, teacher: Side) -> None:
    unequal = [
        f"`{ours}` {s} of `{student.name}` with `{theirs}` {t} of `{teacher.name}`"
        for (ours, theirs), (s, t) in zip(pairs, shapes, strict=True)
        if s[0] != t[0]
    ]
    if unequal:
        raise RunError(
            f"`kdsvd` compares vectors over the channels, which must be equally many on both sides: {'; '.join(unequal)}",
            hint='`variant = "width"` works for any channels',
        )


def _require_vectors(pairs: tuple[tuple[str, str], ...], shapes: list[tuple[Shape, Shape]], options: KDSVDOptions) -> None:
    lengths = []
    for (ours, theirs), (s, t) in zip(pairs, shapes, strict=True):
        height, width = min(s[1], t[1]), min(s[2], t[2])
        channels = min(s[0], t[0])
        rows, length = (height * width, channels) if options.variant == "channels" else (channels * height, width)
        if options.vectors > min(rows, length):
            raise RunError(
                f"`kdsvd` wants {options.vectors} singular vectors, but the matrix ({rows}, {length}) of `{ours}` and `{theirs}` has "
                f"only {min(rows, length)}",
                hint="lower `vectors`, or name other stages in `student_stages` and `teacher_stages`",
            )
        lengths.append(length)
    if max(lengths) == 1:
        stages = ", ".join(f"`{ours}`" for ours, _ in pairs)
        raise RunError(
            f"`kdsvd` with the variant `{options.variant}` has vectors of one entry in every stage ({stages}), which are always equal",
            hint="name stages with larger maps in `student_stages` and `teacher_stages`",
        )
