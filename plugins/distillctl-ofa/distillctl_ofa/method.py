"""One-for-all distillation: stages of any architecture are brought to logits, where student and teacher can be compared.

    L = ℓ(z_s) + Σ_k ℓ(branch_k(f_s,k)),    ℓ(z) = mean_B −Σ_c [(p_t,c + m_c)^ε − m_c] · log softmax(z)_c

z_s, z_t (B, C): `student["logits"]`, `teacher["logits"]`; p_t = softmax(z_t), detached; m → one-hot of `batch.labels`; ε → `eps`;
f_s,k → stages of the student (B, C_k, h, w), also the tokens of a transformer as a map; branch_k → separable convolutions, average over
the positions and a linear layer (`modules.make_branch`). Of the teacher only the logits are read.

Hao, Guo, Han, Tang, Hu, Wang, Xu, "One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge Distillation",
NeurIPS 2023, arXiv 2310.19444.

Where we differ: the branches of a transformer are convolutions too (theirs merge patches and add transformer blocks); widths of the
branches are those of the student's deeper stages (theirs double, and end in the wider of the two networks). The formula is that of
their code; `variant = "paper"` gives the one in print.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distillctl import Batch, Features, Method, Progress, RunError, Setup, Wants, fp32, input_of, widen
from distillctl_ofa.losses import cross_entropy, enhanced_target
from distillctl_ofa.modules import make_branch
from distillctl_ofa.options import OFAOptions


class OFA(Method):
    """The enhanced cross-entropy with the teacher, of the student's logits and of a branch at each stage. Terms: `branches`, `logits`.

    Reduction: sum over classes, mean over the batch, sum over the branches; factors of the options included. Feeding a batch twice
    leaves the values as they are. Cross-entropies: neither term is zero where student and teacher agree. A part whose factor is 0 is not
    computed. The branches normalise over the batch. Hao, Guo, Han, Tang, Hu, Wang, Xu 2023, arXiv 2310.19444.

    Raises:
        RunError: a stage is not a feature map (C, H, W), the student declares no stages, or both factors are 0.
    """

    # The branches may be as heavy as the student itself: 1.26 of its multiplications for ShuffleV1 beside resnet32x4, by count.
    autocast = True

    def __init__(self, options: OFAOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        if options.branch_weight == options.logits_weight == 0:
            raise RunError(
                "`ofa` has nothing to learn from with `branch_weight` and `logits_weight` both 0",
                hint="for a student without a teacher: `none`",
            )
        self.options = options
        self.stages = setup.student.expand(options.student_stages) if options.branch_weight else ()
        if options.branch_weight and not self.stages:
            raise RunError(
                f"`ofa` gives every stage a branch, but `{setup.student.name}` declares none",
                hint="name module paths in `student_stages`, or set `branch_weight = 0`",
            )
        widths = [setup.student.feature_map(name, "ofa")[0] for name in self.stages]
        self.branches = nn.ModuleList(make_branch(widths[k:], setup.num_classes) for k in range(len(widths)))

    @classmethod
    def wants(cls, options: OFAOptions) -> Wants:
        """The student's stages, if they get branches."""
        return Wants(student=tuple(options.student_stages) if options.branch_weight else ())

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> dict[str, Tensor]:
        """The terms, 0-dim, float32 (float64 for float64 features), factors included."""
        outputs = [branch(input_of(self.branches, student[name])) for name, branch in zip(self.stages, self.branches, strict=True)]
        terms = {}
        with fp32(batch.images.device):
            target = enhanced_target(widen(teacher["logits"].detach()), batch.labels, self.options.eps, self.options.variant)
            if outputs:
                losses = [cross_entropy(widen(logits), target) for logits in outputs]
                terms["branches"] = self.options.branch_weight * torch.stack(losses).sum()
            if self.options.logits_weight:
                terms["logits"] = self.options.logits_weight * cross_entropy(widen(student["logits"]), target)
        return terms
