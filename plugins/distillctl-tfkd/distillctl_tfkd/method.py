"""`tfkd`: a teacher that nobody trained. It is always right, and finds all wrong classes equally likely.

    L = T² · mean_B KL(p ‖ softmax(z_s/T)),    p = softmax(u/τ),    u_y = a,  u_k = (1 − a)/(C − 1) for k ≠ y

z_s (B, C): `student["logits"]`; y: `batch.labels`; a: `correct_probability`; τ: `temperature`; T: `student_temperature`, 1 by default.
`soften = "log_probabilities"` has the logarithms of u in its place: p ∝ u^(1/τ).

`tfkd-self`: the teacher is the student's own kind of network, trained before without any teacher.

    L = T² · mean_B KL(softmax(z_t/T) ‖ softmax(z_s/T))

z_s, z_t (B, C): `student["logits"]`, `teacher["logits"]`; T: `temperature`. It is the loss of `kd`; the method adds its weights, and
makes sure that both networks are of one kind.

Yuan, Tay, Li, Wang, Feng, "Revisiting Knowledge Distillation via Label Smoothing Regularization", CVPR 2020, arXiv 1909.11723,
where they are called Tf-KD_reg and Tf-KD_self.

Where we differ: `tfkd` nowhere from the authors' code on 100 classes, whose factor of 100 turns its mean over B · C numbers into the mean
over the batch that it is here. The paper's formula softens the student by τ too; the code does not. In `tfkd-self` the divergence is a
mean over the batch. The authors' code takes the mean over B · C numbers and multiplies it by a factor of its own for every network, which
is part of `weight` here.
"""

from __future__ import annotations

from torch import Tensor

from distillctl import Batch, Features, Method, Progress, RunError, Setup, TemperatureMethod, kd_loss
from distillctl_tfkd.losses import tfkd_loss, virtual_teacher
from distillctl_tfkd.options import TfKDOptions, TfKDSelfOptions


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
