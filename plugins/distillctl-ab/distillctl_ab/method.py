"""Activation boundaries: before its training, the student's body learns which neurons of the teacher are active.

    L = 3/1000 · Σ_i 2^(i−n) · 1/B · Σ_b Σ_{c,h,w} { (s' − m)² · 1[s' ≤ m]   where t > 0        s' = R(s)
                                                   { (s' + m)² · 1[s' > −m]  where t ≤ 0

s, t → `student`, `teacher` (B, C, H, W), maps of stage i = 1 … n before the last ReLU, the teacher's detached; R → `connectors`, nothing
where the shapes agree; m → `margin`.

The loss is that of a phase before the main part, in which the student's body and the connectors are trained and the classifier rests.
In the main part the method has no term.

Heo, Lee, Yun, Choi, "Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons", AAAI 2019,
arXiv 1811.03233.

Where we differ: heights and widths may differ in any way, not only as FitNet's regressor allows; what then is still larger is
average-pooled. The rest is RepDistiller's, whose factor 3/1000 and weights of the stages are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from distillctl import Batch, Features, Method, Phase, Progress, Setup, Wants, match_size, pair_stages
from distillctl_ab.losses import ab_loss
from distillctl_ab.modules import connector
from distillctl_ab.options import ABOptions

PHASE = "init"


class AB(Method):
    """3/1000 · Σ_i 2^(i−n) · mean_B Σ_{c,h,w} max(m − sign(t)·s', 0)², where sign(0) = −1; in the phase `init`. arXiv 1811.03233.

    Reduction: sum over channels and positions, mean over the batch, sum over the stages, of which the deepest counts fully and each
    before it half as much as the next; then 3/1000. `weight` applies in the phase; the main part has no term.

    Raises:
        RunError: a stage is not a feature map, or stages cannot be paired.
    """

    in_main = False

    def __init__(self, options: ABOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        self.options = options
        student, teacher = setup.student, setup.require_teacher()
        self.pairs = pair_stages("ab", student, teacher, options.student_stages, options.teacher_stages)
        self.connectors = nn.ModuleList(
            connector(student.feature_map(ours, "ab"), teacher.feature_map(theirs, "ab")) for ours, theirs in self.pairs
        )

    @classmethod
    def wants(cls, options: ABOptions) -> Wants:
        """The stages of both sides."""
        return Wants(student=tuple(options.student_stages), teacher=tuple(options.teacher_stages))

    def phases(self) -> Sequence[Phase]:
        """One, which trains the student's body and the connectors."""
        options = self.options
        return [Phase(PHASE, options.init_epochs, lr=options.init_lr, student=True, modules=("connectors",), weighted=True)]

    def forward_phase(self, phase: str, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The unweighted loss, 0-dim."""
        connected = [connect(student[ours]) for connect, (ours, _) in zip(self.connectors, self.pairs, strict=True)]
        maps = [match_size(s, teacher[theirs].detach()) for s, (_, theirs) in zip(connected, self.pairs, strict=True)]
        return ab_loss([s for s, _ in maps], [t for _, t in maps], self.options.margin)

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> dict[str, Tensor]:
        """No terms: the main part does not evaluate this method."""
        return {}
