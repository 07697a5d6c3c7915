"""Factor transfer: an autoencoder paraphrases the teacher's map, and the student learns to translate its own into the paraphrase.

    phase `paraphraser`:   L = mean (D(E(f_t)) − f_t)²
    afterwards:            L = mean |N(Q(F_t)) − N(Q(F_s))|^p2,    F_t = E(f_t),  F_s = T(f_s)

f_t, f_s (B, C, H, W): `teacher[teacher_stage]`, detached, and `student[student_stage]`; E, D: encoder and decoder of `paraphraser`;
T: `translator`; Q(F) = mean_c |F|^p1 (`factor = "attention"`) or F itself (`"full"`); N(x) = x / ‖x‖₂ for each sample.

Kim, Park, Kwak, "Paraphrasing Complex Network: Network Compression via Factor Transfer", NeurIPS 2018, arXiv 1802.04977.

Where we differ: the paper compares whole factors; the benchmark that published weight 200 averages their squares over the channels
first, which is the default here. A zero factor gives zeros and no gradient.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distillctl import Batch, Features, Method, Phase, Progress, Setup, Wants, fp32, input_of, match_size, widen
from distillctl_ft.losses import factor_loss
from distillctl_ft.modules import Paraphraser, translator
from distillctl_ft.options import FTOptions


class FT(Method):
    """mean |N(Q(F_t)) − N(Q(F_s))|^p2, arXiv 1802.04977. One term; in the phase `paraphraser` it is mean (D(E(f_t)) − f_t)².

    Reduction: both are means over all elements, so that feeding a batch twice leaves them as they are, but for the statistics of
    the translator's batch normalisation. The phase trains `paraphraser` alone, which is frozen afterwards; the translator is trained
    with the student. Multiplying a factor by a positive number changes nothing. Zero where the factors agree. The larger factor is
    average-pooled to the smaller one.

    Raises:
        RunError: a stage is not a feature map (C, H, W).
    """

    # The paraphraser has 31.5·C² weights at k = 0.5: 132 million for a teacher that ends in 2,048 channels.
    autocast = True

    def __init__(self, options: FTOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        self.options = options
        student_channels, *_ = setup.student.feature_map(options.student_stage, "ft")
        channels, *_ = setup.require_teacher().feature_map(options.teacher_stage, "ft")
        factors = max(1, int(channels * options.rate))
        self.paraphraser = Paraphraser(channels, factors)
        self.translator = translator(student_channels, factors, batch_norm=options.batch_norm)

    @classmethod
    def wants(cls, options: FTOptions) -> Wants:
        """One feature map of each side."""
        return Wants(student=(options.student_stage,), teacher=(options.teacher_stage,))

    def phases(self) -> tuple[Phase, ...]:
        """The paraphraser is trained first, on the teacher's maps; the student does not run."""
        return (Phase(name="paraphraser", epochs=self.options.init_epochs, lr=self.options.init_lr, modules=("paraphraser",)),)

    def forward_phase(self, phase: str, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The error of the reconstruction, 0-dim."""
        target = input_of(self.translator, teacher[self.options.teacher_stage].detach())
        rebuilt = self.paraphraser(target)
        with fp32(rebuilt.device):
            return F.mse_loss(widen(rebuilt), widen(target))

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The distance of the factors, 0-dim."""
        translated = self.translator(input_of(self.translator, student[self.options.student_stage]))
        paraphrased = self.paraphraser.encoder(input_of(self.translator, teacher[self.options.teacher_stage].detach())).detach()
        with fp32(translated.device):
            factors = match_size(widen(translated), widen(paraphrased))
            return factor_loss(*factors, kind=self.options.factor, p1=self.options.p1, p2=self.options.p2)
