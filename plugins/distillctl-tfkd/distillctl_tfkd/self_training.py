"""`tfkd-self`: the teacher is the student's own kind of network, trained before without any teacher.

    L = T² · mean_B KL(softmax(z_t/T) ‖ softmax(z_s/T))

z_s, z_t (B, C): `student["logits"]`, `teacher["logits"]`; T: `temperature`. It is the loss of `kd`; the method adds its weights, and
makes sure that both networks are of one kind.
Yuan, Tay, Li, Wang, Feng, "Revisiting Knowledge Distillation via Label Smoothing Regularization", CVPR 2020, arXiv 1909.11723,
where it is called Tf-KD_self.

Where we differ: the divergence is a mean over the batch. The authors' code takes the mean over B · C numbers and multiplies it by a
factor of its own for every network, which is part of `weight` here.
"""

from __future__ import annotations

from torch import Tensor

from distillctl import Batch, Features, Progress, RunError, Setup, TemperatureMethod, kd_loss
from distillctl_tfkd.options import TfKDSelfOptions


class TfKDSelf(TemperatureMethod):
    """T² times the divergence from the teacher's to the student's probabilities: sum over the classes, mean over the batch. One term.

    Feeding a batch twice leaves the value as it is. Zero, with zero gradient, where the logits agree up to a shift of each row.
    Yuan, Tay, Li, Wang, Feng 2020, arXiv 1909.11723.

    Raises:
        RunError: teacher and student are different models.
    """

    def __init__(self, options: TfKDSelfOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        student, teacher = setup.student.name, setup.require_teacher().name
        if teacher != student:
            raise RunError(
                f"`tfkd-self` learns from an earlier run of the same model, but the teacher is `{teacher}` and the student `{student}`",
                hint=f"train `{student}` with the method `none` first and make it the teacher; for two different models: `kd`",
            )
        self.temperature = options.temperature

    def forward(
        self, batch: Batch, student: Features, teacher: Features, progress: Progress, *, temperature: Tensor | None = None
    ) -> Tensor:
        """The term, 0-dim. `temperature`, 0-dim or (B, 1), replaces the option."""
        scale = self.temperature if temperature is None else temperature
        return kd_loss(student["logits"], teacher["logits"].detach(), scale, scale)
