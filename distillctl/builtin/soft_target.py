"""`soft-target`: `kd` with the weight given as a ratio, as pytorch-classifier has it.

    L = CE + r/(1 − r) · KD(T),    r → `ratio`, 0 ≤ r < 1

which is ((1 − r)·CE + r·KD)/(1 − r): the gradient, and so the effective learning rate, grows with r. There r ≥ 1 jumps back to the
factor r; here it is refused. Its label loss smooths labels by 0.1: `train.label_smoothing = 0.1`.
"""

from __future__ import annotations

from torch import Tensor

from distillctl.api.method import Batch, Features, Progress, Setup
from distillctl.builtin.kd import KD
from distillctl.builtin.kd_options import SoftTargetOptions


class SoftTarget(KD):
    """r/(1 − r) times the term of `kd`: mean over the batch. Hinton, Vinyals, Dean 2015, arXiv 1503.02531."""

    def __init__(self, options: SoftTargetOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        self.factor = options.ratio / (1 - options.ratio)

    def forward(
        self, batch: Batch, student: Features, teacher: Features, progress: Progress, *, temperature: Tensor | None = None
    ) -> Tensor:
        """The term with its factor, 0-dim."""
        return self.factor * super().forward(batch, student, teacher, progress, temperature=temperature)
