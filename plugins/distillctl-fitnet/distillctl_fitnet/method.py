"""`fitnet`: one of the teacher's intermediate maps, the hint, is regressed from a map of the student.

    L = mean over all elements of (R(f_s) − f_t)²

f_s, f_t (B, C, H, W): `student[student_stage]`, `teacher[teacher_stage]`, the teacher's detached. R: `regressor`, a convolution that fits
the two sizes, batch normalisation and, where the hint has no negative values, ReLU (`modules.py`); it is trained with the student.
Romero, Ballas, Kahou, Chassang, Gatta, Bengio, ICLR 2015, arXiv 1412.6550.

Where we differ: the paper trains the student up to the guided layer first and distils afterwards; here, as in the benchmarks, the hint is a
term beside the label loss from the first epoch on. The benchmarks' regressor always ends in a ReLU, which cannot reach negative
values: half of what some networks give (sums of residual blocks, linear bottlenecks). And they refuse pairs of sizes that their table of
convolutions lacks; here these are pooled.
"""

from __future__ import annotations

from torch import Tensor

from distillctl import Batch, Features, Method, Progress, Setup, Wants, fp32, input_of, widen
from distillctl_fitnet.losses import hint_loss
from distillctl_fitnet.modules import Regressor
from distillctl_fitnet.options import FitNetOptions


class FitNet(Method):
    """Mean of (R(f_s) − f_t)² over batch, channels and positions, arXiv 1412.6550. One term.

    Feeding a batch twice leaves the value as it is; R's batch normalisation uses the statistics of the batch. Zero where R gives the hint.
    State dict: R with its running statistics.

    Raises:
        RunError: a stage is not a feature map (C, H, W).
    """

    # Where sizes differ, the convolution may be as heavy as a stage of the student: kernels from 3×3, between the widths of both maps.
    autocast = True

    def __init__(self, options: FitNetOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        teacher = setup.require_teacher()
        self.student_stage, self.teacher_stage = options.student_stage, options.teacher_stage
        guided = setup.student.feature_map(options.student_stage, "fitnet")
        hint = teacher.feature_map(options.teacher_stage, "fitnet")
        negative = bool((teacher.sample[options.teacher_stage] < 0).any())
        relu = not negative if options.activation == "auto" else options.activation == "relu"
        if relu and negative:
            self.notes = (
                f'`fitnet`: `{options.teacher_stage}` of the teacher has negative values, which `activation = "relu"` never gives',
            )
        self.regressor = Regressor(guided, hint, relu)

    @classmethod
    def wants(cls, options: FitNetOptions) -> Wants:
        """One feature map of each side."""
        return Wants(student=(options.student_stage,), teacher=(options.teacher_stage,))

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The unweighted loss, 0-dim, float32 (float64 for float64 features)."""
        regressed = self.regressor(input_of(self.regressor, student[self.student_stage]))
        with fp32(regressed.device):
            return hint_loss(widen(regressed), widen(teacher[self.teacher_stage].detach()))
