"""`tfkd`: a teacher that nobody trained. It is always right, and finds all wrong classes equally likely.

    L = T² · mean_B KL(p ‖ softmax(z_s/T)),    p = softmax(u/τ),    u_y = a,  u_k = (1 − a)/(C − 1) for k ≠ y

z_s (B, C): `student["logits"]`; y: `batch.labels`; a: `correct_probability`; τ: `temperature`; T: `student_temperature`, 1 by default.
`soften = "log_probabilities"` has the logarithms of u in its place: p ∝ u^(1/τ).
Yuan, Tay, Li, Wang, Feng, "Revisiting Knowledge Distillation via Label Smoothing Regularization", CVPR 2020, arXiv 1909.11723,
where it is called Tf-KD_reg.

Where we differ: nowhere from the authors' code on 100 classes, whose factor of 100 turns its mean over B · C numbers into the mean over
the batch that it is here. The paper's formula softens the student by τ too; the code does not.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from distillctl import Batch, Features, Method, Progress, RunError, Setup, is_target, kl_divergence
from distillctl_tfkd.options import TfKDOptions


class TfKD(Method):
    """T² times the divergence from the virtual teacher's to the student's probabilities. One term.

    Reduction: sum over the classes, mean over the batch; feeding a batch twice leaves the value as it is. Zero where the student gives
    the virtual teacher's probabilities to every image. `batch.labels` names the true class. Yuan, Tay, Li, Wang, Feng 2020,
    arXiv 1909.11723.

    Raises:
        RunError: the virtual teacher would not prefer the true class.
    """

    def __init__(self, options: TfKDOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        if options.correct_probability <= 1 / setup.num_classes:
            raise RunError(
                f"the virtual teacher of `tfkd` does not prefer the true class: `correct_probability` is {options.correct_probability:g} "
                f"with {setup.num_classes} classes",
                hint=f"it must be above 1/{setup.num_classes}: the authors take 0.99 for 100 classes",
            )
        self.options = options

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The term, 0-dim."""
        options, logits = self.options, student["logits"]
        target = virtual_teacher(
            batch.labels,
            logits.shape[1],
            options.correct_probability,
            options.temperature,
            logs=options.soften == "log_probabilities",
            dtype=logits.dtype,
        )
        return tfkd_loss(logits, target, options.student_temperature)


def virtual_teacher(
    labels: Tensor, num_classes: int, correct: float, temperature: float, *, logs: bool, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Log-probabilities (B, num_classes) of the softened teacher that gives `correct` to the class in labels (B,).

    logs: whether the temperature divides the logarithms of its probabilities instead of the probabilities.
    """
    other = (1 - correct) / (num_classes - 1)
    gap = (math.log(other / correct) if logs else other - correct) / temperature
    log_correct = -math.log1p((num_classes - 1) * math.exp(gap))
    is_correct = is_target(labels, num_classes)
    rest = torch.full(is_correct.shape, log_correct + gap, dtype=dtype, device=labels.device)
    return rest.masked_fill(is_correct, log_correct)


def tfkd_loss(logits: Tensor, log_target: Tensor, student_temperature: float) -> Tensor:
    """T² · mean_B KL(p ‖ softmax(z/T)) of logits z (B, C) and log-probabilities log p (B, C), 0-dim."""
    return kl_divergence(log_target, F.log_softmax(logits / student_temperature, dim=1)).mean() * student_temperature**2
