"""`dkd`: KD taken apart into the target class and the other classes, each with its own weight.

    L = α · TCKD + β · NCKD,    TCKD = T² · mean_B KL(b_t ‖ b_s),    NCKD = T² · mean_B KL(q_t ‖ q_s)

b = (p_g, 1 − p_g) with p = softmax(z/T) and g = y, `batch.labels`; q = softmax of the C − 1 logits other than g.
z_s, z_t (B, C): `student["logits"]`, `teacher["logits"]`; T: `temperature`; α, β: `alpha`, `beta`.
Zhao, Cui, Song, Qiu, Liang, CVPR 2022, arXiv 2203.08679.

KD itself is α = 1 and, sample by sample, β = 1 − p_t,g: the surer the teacher, the less KD learns from the other classes.

Where we differ: the authors' code takes logarithms of summed probabilities, which are −∞ for sure students, and removes
the target class by subtracting 1000 from its logit. Here both parts are computed from log-sum-exps, which
gives the same values and stays finite.
"""

from __future__ import annotations

from torch import Tensor

from distillctl import (
    Batch,
    Features,
    Progress,
    RunError,
    Setup,
    TemperatureMethod,
    is_target,
    other_divergence,
    split_target,
    target_divergence,
)
from distillctl_dkd.options import DKDOptions


class DKD(TemperatureMethod):
    """α·TCKD and β·NCKD, each T² times the mean over the batch of a divergence. Terms: `tckd`, `nckd`.

    Feeding a batch twice leaves the values as they are. Both are zero, with zero gradient, where the logits agree up to
    a shift of each row. `batch.labels` names the target class. A part whose factor is 0 is not computed.

    Raises:
        RunError: there is one class only, so that no other class is left; or α and β are both 0, or α is and there
            are two classes.
    """

    def __init__(self, options: DKDOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        if setup.num_classes < 2:
            raise RunError(f"`dkd` needs at least 2 classes, not {setup.num_classes}")
        if options.alpha == options.beta == 0:
            raise RunError("`dkd` has nothing to learn from with `alpha` and `beta` both 0", hint="for a student without a teacher: `none`")
        if setup.num_classes == 2 and options.beta:
            self.notes = ("`dkd`: with two classes one other is left, so the part on the other classes (`beta`) is 0",)
        if setup.num_classes == 2 and not options.alpha:
            raise RunError("`dkd` has nothing to learn from with `alpha = 0` and two classes: no other class is left to be compared")
        self.temperature = options.temperature
        self.alpha = options.alpha
        self.beta = options.beta

    def forward(
        self, batch: Batch, student: Features, teacher: Features, progress: Progress, *, temperature: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The terms, 0-dim, α and β included. `temperature`, 0-dim or (B, 1), replaces the option."""
        logits_s, logits_t = student["logits"], teacher["logits"].detach()
        target = is_target(batch.labels, logits_s.shape[1])
        scale = self.temperature if temperature is None else temperature
        gap_s, log_q_s = split_target(logits_s / scale, target)
        gap_t, log_q_t = split_target(logits_t / scale, target)
        # One column, so that a factor of shape () or (B, 1) fits alike.
        terms = {}
        if self.alpha:
            terms["tckd"] = self.alpha * (target_divergence(gap_s, gap_t).unsqueeze(1) * scale**2).mean()
        if self.beta:
            terms["nckd"] = self.beta * (other_divergence(log_q_s, log_q_t, target).unsqueeze(1) * scale**2).mean()
        return terms
