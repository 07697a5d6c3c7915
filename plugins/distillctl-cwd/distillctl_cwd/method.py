"""`cwd`: each channel of the student's map shall be strong at the positions at which the teacher's is.

    L = Σ_stages T²/(B·C) · Σ_{b,c} KL(φ_t ‖ φ_s),    φ = softmax over the H·W positions of each channel's activations / T

f_s, f_t (B, C, H, W): paired stages of `student` and `teacher`, the teacher's detached; φ_s that of A(f_s), φ_t that of f_t; T:
`temperature`. A: one of `connectors`, a 1×1 convolution to the teacher's channels where these differ in number, nothing otherwise.
Shu, Liu, Gao, Yan, Shen, ICCV 2021, arXiv 2011.13256.

A number added to a channel changes nothing: it is compared where a channel is strong, not how strong it is everywhere.

Where we differ: the larger map is average-pooled to the smaller one where sizes differ (the published code stops there), and pairs of
which one position is left are refused if there is no other: the softmax of one number is 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distillctl import Batch, Features, Method, Progress, Setup, Wants, fp32, input_of, match_size, pair_stages, require_positions, widen
from distillctl_cwd.losses import cwd_loss
from distillctl_cwd.options import CWDOptions


class CWD(Method):
    """Σ_stages T² · mean_{B,C} KL(φ_t ‖ φ_s), φ the softmax of a channel over its positions, arXiv 2011.13256. One term.

    Reduction: sum over the positions, mean over images and channels, sum over the pairs of stages. Feeding a batch twice leaves the
    value as it is. Zero, with zero gradient, where the maps agree up to a number added to each channel of each image. State dict: the
    convolutions, where there are any.

    Raises:
        RunError: a stage is not a feature map, the stages cannot be paired, or no pair has more than one position to compare.
    """

    # A convolution from 512 to 2048 channels costs as much as a block of the student.
    autocast = True

    def __init__(self, options: CWDOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        student, teacher = setup.student, setup.require_teacher()
        self.temperature = options.temperature
        self.pairs = pair_stages("cwd", student, teacher, options.student_stages, options.teacher_stages)
        require_positions("cwd", student, teacher, self.pairs, "compares positions, but only one is left")
        self.connectors = nn.ModuleList()
        for ours, theirs in self.pairs:
            channels, wanted = student.channels(ours), teacher.channels(theirs)
            # Without bias: a softmax does not see what is added to all of its positions.
            self.connectors.append(nn.Identity() if channels == wanted else nn.Conv2d(channels, wanted, 1, bias=False))

    @classmethod
    def wants(cls, options: CWDOptions) -> Wants:
        """The feature maps that are compared."""
        return Wants(student=tuple(options.student_stages), teacher=tuple(options.teacher_stages))

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The unweighted loss, 0-dim, float32 (float64 for float64 features)."""
        terms = []
        for (ours, theirs), connect in zip(self.pairs, self.connectors, strict=True):
            maps, target = match_size(student[ours], teacher[theirs].detach())
            if isinstance(connect, nn.Conv2d):
                maps = connect(input_of(connect, maps))
            with fp32(maps.device):
                terms.append(cwd_loss(widen(maps), widen(target), self.temperature))
        return torch.stack(terms).sum()
