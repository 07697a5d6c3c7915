"""`vid`: the student's maps must tell much about the teacher's: a Gaussian with learnt mean and variance predicts these from those.

    L = Σ_stages mean over all elements of ½((μ − f_t)²/σ² + log σ²),    μ = R(f_s),    σ²_c = softplus(ρ_c) + eps

f_s (B, C_s, H, W), f_t (B, C_t, H, W): paired stages of `student` and `teacher`, the teacher's detached. R: one of `regressors`, three 1×1
convolutions without bias, all C_t channels wide, with ReLUs between them. ρ (C_t,): one of `rhos`, such that σ² starts at `init_variance`.
Ahn, Hu, Damianou, Lawrence, Dai, CVPR 2019, arXiv 1904.05835.

L is, but for a constant, an upper bound of minus the mutual information of the two maps, averaged over the elements. A channel that the
student cannot predict gets a large variance and weighs little; at the optimum σ²_c is the mean squared error of channel c.

Where we differ: ρ has no weight decay, which would pull all variances to log 2, and it is trained in every setting (mdistiller's ρ is in no
optimizer: its variance stays at 5, and the loss is a tenth of a mean squared error).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from distillctl import Batch, Features, Method, Progress, RunError, Setup, Wants, fp32, input_of, match_size, pair_stages, widen
from distillctl_vid.losses import gaussian_loss, rho_of, variance_of
from distillctl_vid.modules import regressor
from distillctl_vid.options import VIDOptions


class VID(Method):
    """Σ_stages mean of ½((μ − f_t)²/σ² + log σ²) over batch, channels and positions, arXiv 1904.05835. One term.

    Feeding a batch twice leaves the value as it is. It is not a distance: below variances of 1 it may be negative. `metrics` has
    `variance`, the geometric mean of σ² over all channels and stages. State dict: regressors and ρ.

    Raises:
        RunError: a stage is not a feature map (C, H, W), the stages cannot be paired, or `init_variance` is not above `eps`.
    """

    # Two of the three convolutions are as wide as the teacher's map: 2·2048² weights at every position of a ResNet-50's last stage.
    autocast = True

    def __init__(self, options: VIDOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        if options.init_variance <= options.eps:
            raise RunError(
                f"`vid` cannot start at `init_variance` = {options.init_variance:g}, since no variance is below `eps` = {options.eps:g}",
                hint="choose a smaller `eps`",
            )
        student, teacher = setup.student, setup.require_teacher()
        self.eps = options.eps
        self.pairs = pair_stages("vid", student, teacher, options.student_stages, options.teacher_stages)
        self.regressors = nn.ModuleList()
        self.rhos = nn.ParameterList()
        for ours, theirs in self.pairs:
            channels = teacher.feature_map(theirs, "vid")[0]
            self.regressors.append(regressor(student.feature_map(ours, "vid")[0], channels))
            self.rhos.append(nn.Parameter(torch.full((channels,), rho_of(options.init_variance, options.eps))))

    @classmethod
    def wants(cls, options: VIDOptions) -> Wants:
        """The feature maps that are compared."""
        return Wants(student=tuple(options.student_stages), teacher=tuple(options.teacher_stages))

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The unweighted loss, 0-dim, float32 (float64 for float64 features)."""
        terms = []
        for (ours, theirs), predict, rho in zip(self.pairs, self.regressors, self.rhos, strict=True):
            source, target = match_size(input_of(self.regressors, student[ours]), widen(teacher[theirs].detach()))
            mean = predict(source)
            with fp32(mean.device):
                terms.append(gaussian_loss(widen(mean), target, variance_of(rho, self.eps)))
        return torch.stack(terms).sum()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The regressors, and ρ in a group of its own without weight decay."""
        return [{"params": list(self.regressors.parameters())}, {"params": list(self.rhos), "weight_decay": 0.0}]

    @torch.no_grad()
    def metrics(self) -> dict[str, Tensor]:
        """The geometric mean of all variances."""
        return {"variance": variance_of(torch.cat(list(self.rhos)), self.eps).log().mean().exp()}
