"""`ttm`: the student matches the teacher's probabilities raised to a power. `wttm`: the less sure the teacher is, the more an image counts.

    L = mean_B KL(q ‖ p_s)         (`ttm`)
    L = mean_B U · KL(q ‖ p_s)     (`wttm`)

    q = p_t^γ / U,    U = Σ_c p_t,c^γ,    p = softmax(z), at temperature 1

z_s, z_t (B, C): `student["logits"]`, `teacher["logits"]`, the teacher's detached; γ: `gamma`; log q, log U: `powered`.
Zheng, Yang, "Knowledge Distillation Based on Transformed Teacher Matching", ICLR 2024, arXiv 2402.11148.

q is the teacher's softmax at temperature 1/γ, so that this is distillation with a temperature for the teacher alone; nothing is multiplied
by its square. The student's probabilities are those that it is used with, and no method around this one can steer a temperature.

Where we differ: nowhere in the values from the authors' code. It raises probabilities to the power, some of which are 0 for a sure teacher;
here everything is in logarithms.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from distillctl import Batch, Features, Method, Progress, Setup
from distillctl_ttm.losses import ttm_loss
from distillctl_ttm.options import TTMOptions, WTTMOptions


class TTM(Method):
    """Mean over the batch of the divergence from the teacher's powered to the student's probabilities, arXiv 2402.11148. One term.

    Reduction: sum over the classes, mean over the batch; feeding a batch twice leaves the value as it is. With γ = 1 zero, with zero
    gradient, where the logits agree up to a shift of each row; otherwise where the student's logits are γ times the teacher's.
    """

    weighted: ClassVar[bool] = False

    def __init__(self, options: TTMOptions | WTTMOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        self.gamma = options.gamma

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The term, 0-dim."""
        return ttm_loss(student["logits"], teacher["logits"].detach(), self.gamma, weighted=self.weighted)


class WTTM(TTM):
    """The term of `ttm` with each image's divergence multiplied by U, arXiv 2402.11148: from 1, where the teacher is sure, to C^(1 − γ).

    Reduction and zeros are those of `ttm`. The factors are not divided by their sum: the weight of the method is for them.
    """

    weighted: ClassVar[bool] = True
