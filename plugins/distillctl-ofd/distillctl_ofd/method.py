"""Overhaul of feature distillation: a partial distance to the teacher's maps before their ReLU, raised to a margin.

    L = Σ_i 2^(i−n) · 1/B · Σ_b Σ_{c,h,w} (s' − t')² · 1[s' > t' or t > 0]        t' = max(t, m_c),  s' = BN(conv(s))

s, t → `student`, `teacher` (B, C, H, W), maps of stage i = 1 … n before the last ReLU, the teacher's detached; conv and BN →
`connectors`, to the teacher's channels, the convolution without a bias; m_c → `margins`, (C_t,) for each stage, the mean of the negative
values of N(β_c, γ_c²), where γ and β belong to the batch normalisation before the teacher's ReLU.

Heo, Kim, Yun, Park, Kwak, Choi, "A Comprehensive Overhaul of Feature Distillation", ICCV 2019, arXiv 1904.01866.

Where we differ: the teacher's running statistics do not drift while it runs on those of the batch; the larger map is average-pooled
to the smaller one (the authors' code needs equal sizes).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distillctl import Batch, Features, Method, Progress, Setup, Wants, match_size, pair_stages
from distillctl_ofd.losses import ofd_loss
from distillctl_ofd.modules import connector, margins_of, norms_before
from distillctl_ofd.options import OFDOptions


class OFD(Method):
    """Σ_i 2^(i−n) · mean_B Σ_{c,h,w} (s' − max(t, m))² · 1[s' > max(t, m) or t > 0], arXiv 1904.01866.

    Reduction: sum over channels and positions, mean over the batch, sum over the stages, of which the deepest counts fully and each
    before it half as much as the next. The larger map is average-pooled to the smaller one.

    Raises:
        RunError: a stage is not a feature map, stages cannot be paired, or a batch normalisation of the teacher is not found.
    """

    margins: Tensor

    def __init__(self, options: OFDOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        student, teacher = setup.student, setup.require_teacher()
        self.pairs = pair_stages("ofd", student, teacher, options.student_stages, options.teacher_stages)
        inputs = [student.feature_map(name, "ofd")[0] for name, _ in self.pairs]
        self.widths = [teacher.feature_map(name, "ofd")[0] for _, name in self.pairs]
        norms = norms_before(teacher, tuple(name for _, name in self.pairs), options.margin_norms)
        self.register_buffer("margins", torch.cat([margins_of(norm) for norm in norms]))
        self.connectors = nn.ModuleList(connector(*widths, options.kernel_size) for widths in zip(inputs, self.widths, strict=True))

    @classmethod
    def wants(cls, options: OFDOptions) -> Wants:
        """The stages, and the statistics that the teacher's batch normalisation uses."""
        return Wants(tuple(options.student_stages), tuple(options.teacher_stages), teacher_norm=options.teacher_norm)

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The unweighted loss, 0-dim."""
        maps = [match_size(student[ours], teacher[theirs].detach()) for ours, theirs in self.pairs]
        connected = [connect(s) for connect, (s, _) in zip(self.connectors, maps, strict=True)]
        return ofd_loss(connected, [t for _, t in maps], self.margins.split(self.widths))
