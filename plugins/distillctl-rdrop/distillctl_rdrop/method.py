"""`rdrop`: two passes of the student over one batch, which differ in what dropout dropped, must agree.

    L = mean_B ½ · (KL(p₁ ‖ p₂) + KL(p₂ ‖ p₁)),    p₁, p₂ = softmax(z₁), softmax(z₂)

z₁, z₂ (B, C): `student["logits"][0]` and `[1]`. The method asks for two passes (`Wants.passes`); the engine runs them, averages the
label loss over both, ½ · (CE(z₁, y) + CE(z₂, y)), and so it does with the terms of the other methods of the run. It refuses a
student that gives the same answer twice. Gradients flow through both passes.
Liang, Wu, Li, Wang, Meng, Qin, Chen, Zhang, Liu, "R-Drop: Regularized Dropout for Neural Networks", NeurIPS 2021, arXiv 2106.14448.

Where we differ: the divergence is a mean over the batch, so that its weight does not depend on the size of the batch;
`reduction = "sum"` is that of the authors' sample code and of pytorch-classifier.
"""

from __future__ import annotations

from torch import Tensor

from distillctl import Batch, Features, Method, Progress, RunError, Setup, Wants
from distillctl_rdrop.losses import rdrop_loss
from distillctl_rdrop.options import RDropOptions


class RDrop(Method):
    """Half the sum of the divergences in both directions: sum over the classes, mean (or sum) over the batch. One term.

    Feeding a batch twice leaves the mean as it is and doubles the sum. With several processes the sum is estimated from this one's share,
    so that its mean over the processes is the sum. Never negative, symmetric in the passes, and zero, with zero
    gradient, where they agree up to a shift of each row. Liang, Wu, Li, Wang, Meng, Qin, Chen, Zhang, Liu 2021, arXiv 2106.14448.
    """

    def __init__(self, options: RDropOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        self.reduction = options.reduction

    @classmethod
    def wants(cls, options: RDropOptions) -> Wants:
        """Two passes of the student."""
        return Wants(passes=2)

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The term, 0-dim.

        Raises:
            RunError: the logits are not those of two passes, (2, B, C).
        """
        logits = student["logits"]
        if logits.ndim != 3 or logits.shape[0] != 2:
            raise RunError(f"`rdrop` compares two passes of the student, but its `logits` have shape {tuple(logits.shape)}")
        loss = rdrop_loss(logits[0], logits[1], self.reduction)
        return loss / batch.share if self.reduction == "sum" else loss
