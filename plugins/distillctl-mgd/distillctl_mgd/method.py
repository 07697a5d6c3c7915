"""Masked generative distillation: the student's masked feature map must suffice to regenerate the teacher's.

    L = 1/B · Σ_b Σ_{c,h,w} (G(M ⊙ align(f_s)) − f_t)²

f_s → `student` (B, C_s, H, W); f_t → `teacher` (B, C_t, H, W), detached; align → `align`, a 1×1 convolution where C_s ≠ C_t,
nothing otherwise; M → `keep`, 0 with probability λ (`mask_ratio`) and 1 otherwise, without rescaling, drawn for each channel
(B, C_t, 1, 1) or each position (B, 1, H, W); G → `generator`, 3×3 convolution – ReLU – 3×3 convolution on C_t channels.

Yang, Li, Shao, Shi, Yuan, Yuan, "Masked Generative Distillation", ECCV 2022, arXiv 2205.01529.

Where we differ: the larger map is average-pooled to the smaller one where heights or widths differ (the authors' code stops
there); `normalize = "mean"` is offered, since with the sum the right weight depends on C·H·W.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from distillctl import Batch, Features, Method, Progress, Setup, Wants, draw_rows, fp32, input_of, match_size
from distillctl_mgd.losses import generation_loss
from distillctl_mgd.options import MGDOptions


class MGD(Method):
    """mean_B Σ_{c,h,w} (G(M ⊙ align(f_s)) − f_t)², arXiv 2205.01529.

    Reduction: sum over channels and positions, mean over the batch; with `normalize = "mean"` the mean over everything.
    The mask comes from PyTorch's global generator, which the engine seeds at every step. Of several processes each has its rows of the
    mask that one would draw.

    Raises:
        RunError: a stage is not a feature map (C, H, W).
    """

    # The generator may be the largest module of the run (2048² · 18 weights for a ResNet-50 teacher).
    autocast = True

    def __init__(self, options: MGDOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        self.options = options
        student_channels, *_ = setup.student.feature_map(options.student_stage, "mgd")
        channels, *_ = setup.require_teacher().feature_map(options.teacher_stage, "mgd")
        self.align = nn.Identity() if student_channels == channels else nn.Conv2d(student_channels, channels, 1)
        self.generator = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    @classmethod
    def wants(cls, options: MGDOptions) -> Wants:
        """One feature map of each side."""
        return Wants(student=(options.student_stage,), teacher=(options.teacher_stage,))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All in one; with `decay_biases` the biases decay whatever the optimizer spares."""
        groups = super().parameter_groups()
        return [{**group, "decay": "all"} for group in groups] if self.options.decay_biases else groups

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The unweighted loss, 0-dim, float32 (float64 for float64 features)."""
        source, target = match_size(student[self.options.student_stage], teacher[self.options.teacher_stage].detach())
        aligned = self.align(input_of(self.generator, source))  # (B, C_t, H, W)
        keep = draw_rows(batch, lambda count: draw_mask(count, aligned, self.options.mask, self.options.mask_ratio))
        generated = self.generator(aligned * keep)
        with fp32(generated.device):
            return generation_loss(generated, target, self.options.normalize)


def draw_mask(count: int, maps: Tensor, mask: str, ratio: float) -> Tensor:
    """What is kept of n maps of the shape of those in (B, C, H, W): bool, False with probability `ratio`.

    The result is (n, C, 1, 1) for `channel` and (n, 1, H, W) for `spatial`.
    """
    _, channels, height, width = maps.shape
    shape = (count, channels, 1, 1) if mask == "channel" else (count, 1, height, width)
    return torch.rand(shape, device=maps.device) >= ratio
