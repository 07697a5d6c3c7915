"""`kd`: the student matches the teacher's softened class probabilities.

    L = T_s·T_t · mean_B KL(softmax(z_t/T_t) ‖ softmax(z_s/T_s)),    usually T_s = T_t = T, so the factor is T²

z_s, z_t (B, C): `student["logits"]`, `teacher["logits"]`; T: `temperature`.
Hinton, Vinyals, Dean 2015, arXiv 1503.02531.

The factor T² is always there: gradients of the divergence shrink as 1/T², and a weight that is right at one temperature
should be right at another. With two temperatures it is their product, since the gradient has one 1/T_s from the chain
rule and one 1/T_t from the size of the teacher's differences.
"""

from __future__ import annotations

from torch import Tensor

from distillctl.api.losses import kd_loss
from distillctl.api.method import Batch, Features, Progress, Setup, TemperatureMethod
from distillctl.builtin.kd_options import KDOptions, TwoTemperatures


class KD(TemperatureMethod):
    """Mean over the batch of the divergence from the teacher's to the student's probabilities, times T². One term.

    Feeding a batch twice leaves the value as it is. Zero, with zero gradient, where the logits agree up to a shift of each row.
    """

    def __init__(self, options: KDOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        temperature = options.temperature
        if isinstance(temperature, TwoTemperatures):
            self.student_temperature, self.teacher_temperature = temperature.student, temperature.teacher
        else:
            self.student_temperature = self.teacher_temperature = temperature

    def forward(
        self, batch: Batch, student: Features, teacher: Features, progress: Progress, *, temperature: Tensor | None = None
    ) -> Tensor:
        """The term, 0-dim. `temperature`, 0-dim or (B, 1), replaces both temperatures."""
        return kd_loss(
            student["logits"],
            teacher["logits"].detach(),
            self.student_temperature if temperature is None else temperature,
            self.teacher_temperature if temperature is None else temperature,
        )
