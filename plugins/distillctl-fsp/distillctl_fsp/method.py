"""Flow of solution procedure: the student learns how the features of one stage become those of the next.

    L = Σ_i mean_{B,a,b} (G_i(s) − G_i(t))²,    G_i[b, a] = 1/(H·W) · Σ_{x,y} f_{i+1}[b, x, y] · f_i[a, x, y]

f_i (B, C_i, H, W): the maps of `student_stages` and `teacher_stages`, the teacher's detached; of two neighbours the larger is pooled to
the size of the smaller.

Yim, Joo, Bae, Kim, "A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer Learning", CVPR 2017.

Where we differ: the paper sums squares where the benchmark, as we do, takes their mean; G is one matrix product, and never a tensor of
all products at all positions.
"""

from __future__ import annotations

from torch import Tensor

from distillctl import Batch, Features, Method, Phase, Progress, RunError, Setup, Wants, pair_stages
from distillctl_fsp.losses import fsp_loss
from distillctl_fsp.options import FSPOptions


class FSP(Method):
    """Σ_i mean (G_i(s) − G_i(t))² over neighbouring stages, CVPR 2017. One term.

    Reduction: mean over the batch and both channel dimensions, sum over the pairs of neighbours; feeding a batch twice leaves it as it
    is. The term is evaluated in the phase `init`, which trains the student's body without labels, and not in the main part; with
    `init_epochs = 0` in the main part alone. G doubles with either of its two maps, and a permutation of the positions that is common
    to both leaves it as it is. Zero where the matrices agree.

    Raises:
        RunError: fewer than two stages; a stage that is not a feature map (C, H, W); or other numbers of channels on the two sides.
    """

    def __init__(self, options: FSPOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        teacher = setup.require_teacher()
        pairs = pair_stages("fsp", setup.student, teacher, options.student_stages, options.teacher_stages)
        if len(pairs) < 2:
            raise RunError(
                f"`fsp` compares neighbouring stages, but `{pairs[0][0]}` of `{setup.student.name}` and `{pairs[0][1]}` of "
                f"`{teacher.name}` have no neighbour",
                hint="name at least two in `student_stages` and `teacher_stages`",
            )
        for ours, theirs in pairs:
            shapes = setup.student.feature_map(ours, "fsp"), teacher.feature_map(theirs, "fsp")
            if shapes[0][0] != shapes[1][0]:
                raise RunError(
                    f"`fsp` needs equal numbers of channels, but `{ours}` of `{setup.student.name}` has shape {shapes[0]} and `{theirs}` "
                    f"of `{teacher.name}` {shapes[1]}",
                    hint="name stages of equal width in `student_stages` and `teacher_stages`, take a teacher of the student's width, "
                    "or a method such as `nst`",
                )
        self.options = options
        self.in_main = options.init_epochs == 0
        self.student_stages = tuple(ours for ours, _ in pairs)
        self.teacher_stages = tuple(theirs for _, theirs in pairs)

    @classmethod
    def wants(cls, options: FSPOptions) -> Wants:
        """The stages of both sides."""
        return Wants(student=tuple(options.student_stages), teacher=tuple(options.teacher_stages))

    def phases(self) -> tuple[Phase, ...]:
        """The student's body learns from this loss before the labels, at a constant learning rate; nothing with `init_epochs = 0`."""
        options = self.options
        return () if self.in_main else (Phase("init", options.init_epochs, lr=options.init_lr, student=True, weighted=True),)

    def forward_phase(self, phase: str, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The term, 0-dim."""
        return self.forward(batch, student, teacher, progress)

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The term, 0-dim."""
        return fsp_loss(
            [student[name] for name in self.student_stages],
            [teacher[name].detach() for name in self.teacher_stages],
            self.options.pool,
        )
