"""`pkd`: each channel of the student's map shall rise and fall where the teacher's does, whatever its mean and its spread.

    L = Σ_stages ½ · mean over all elements of (S(A(f_s)) − S(f_t))²

    S(f) = (f − mean) / (std + 10⁻⁶), of each channel over the positions of all images of the batch

f_s, f_t (B, C, H, W): paired stages of `student` and `teacher`, the teacher's detached. A: one of `connectors`, a 1×1 convolution to the
teacher's channels where these differ in number, nothing otherwise; where sizes differ, the student's map is resized bilinearly.
Cao, Zhang, Gao, Cheng, Cheng, Cheng, NeurIPS 2022, arXiv 2207.02039.

With n values in each channel, a stage's term is (n − 1)/n · (1 − ρ), the mean over the channels, where ρ is Pearson's correlation of the
two channels: from 0, where each is a rising linear function of the other, to 2.

Where we differ: other numbers of channels are allowed; a channel that is constant is centred alone, for the published division by 10⁻⁶
makes its gradient a million times as large; a channel of one value (one image with a map of 1×1) gives 0 and not NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distillctl import Batch, Features, Method, Progress, Setup, Wants, fp32, input_of, pair_stages, widen
from distillctl_pkd.losses import pkd_loss
from distillctl_pkd.options import PKDOptions


class PKD(Method):
    """Σ_stages ½ · mean of (S(A(f_s)) − S(f_t))² with maps standardised by channel over the batch, arXiv 2207.02039. One term.

    Reduction: mean over batch, channels and positions, sum over the pairs of stages. Mean and standard deviation are those of the images
    that are compared: of several processes this one's share, as published, with `gather` all. They are of a sample, so that feeding a
    batch twice multiplies the value by (1 − 1/2n)/(1 − 1/n), n = B·H·W. State dict: the convolutions, where there are any.

    Raises:
        RunError: a stage is not a feature map (C, H, W), or the stages cannot be paired.
    """

    # A convolution from 512 to 2048 channels costs as much as a block of the student.
    autocast = True

    def __init__(self, options: PKDOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        student, teacher = setup.student, setup.require_teacher()
        self.pairs = pair_stages("pkd", student, teacher, options.student_stages, options.teacher_stages)
        self.connectors = nn.ModuleList()
        for ours, theirs in self.pairs:
            channels, wanted = student.feature_map(ours, "pkd")[0], teacher.feature_map(theirs, "pkd")[0]
            # Without bias: S subtracts the mean of each channel.
            self.connectors.append(nn.Identity() if channels == wanted else nn.Conv2d(channels, wanted, 1, bias=False))

    @classmethod
    def wants(cls, options: PKDOptions) -> Wants:
        """The feature maps that are compared."""
        return Wants(student=tuple(options.student_stages), teacher=tuple(options.teacher_stages))

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The unweighted loss, 0-dim, float32 (float64 for float64 features)."""
        terms = []
        for (ours, theirs), connect in zip(self.pairs, self.connectors, strict=True):
            maps = student[ours]
            if isinstance(connect, nn.Conv2d):
                maps = connect(input_of(connect, maps))
            with fp32(maps.device):
                terms.append(pkd_loss(widen(maps), widen(teacher[theirs].detach())))
        return torch.stack(terms).sum()
