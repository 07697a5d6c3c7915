"""`mimic`: the student's logits are fitted to the teacher's by least squares.

    L = ½ · mean_B ‖z_s − z_t‖²

z_s, z_t (B, C): `student["logits"]`, `teacher["logits"]`; with `centred`, less their mean over the classes.
Ba, Caruana, NeurIPS 2014, arXiv 1312.6184.

Where we differ: the paper trains on the teacher's logits alone; here the label loss is added with `task_weight`, which
may be 0. The paper has no `centred`.
"""

from __future__ import annotations

from torch import Tensor

from distillctl import Batch, Features, Method, Progress, Setup
from distillctl_example.losses import mimic_loss
from distillctl_example.options import MimicOptions


class Mimic(Method):
    """½ of the squared distance of the logits: sum over the classes, mean over the batch. One term.

    Feeding a batch twice leaves the value as it is. Zero where the logits agree. Ba, Caruana 2014, arXiv 1312.6184.
    """

    def __init__(self, options: MimicOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        self.centred = options.centred

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The term, 0-dim."""
        return mimic_loss(student["logits"], teacher["logits"].detach(), centred=self.centred)
