"""`nkd`: a cross-entropy on the target class and one on all others, whose probabilities are made to sum to 1 on both sides.

    L = −mean_B p_t,y · log p_s,y − γ · T² · mean_B Σ_{i≠y} q_t,i · log q_s,i

p = softmax(z), at temperature 1; q = softmax of the C − 1 logits other than y, divided by T; y: `batch.labels`.
z_s, z_t (B, C): `student["logits"]`, `teacher["logits"]`; T: `temperature`; γ: `gamma`.
Yang, Zeng, Li, Zhang, Yuan, Li, ICCV 2023, arXiv 2303.13005.

Both parts are cross-entropies: where the logits agree they are at the teacher's entropy and not at 0.

Where we differ: the target class is masked out of a log-sum-exp instead of being cut out of the matrix, which gives the same
values, has the same shape for every batch, and stays finite for any logits.
"""

from __future__ import annotations

from torch import Tensor

from distillctl import Batch, Features, Progress, RunError, Setup, TemperatureMethod
from distillctl_nkd.losses import other_loss, target_loss
from distillctl_nkd.options import NKDOptions


class NKD(TemperatureMethod):
    """Means over the batch of −p_t,y · log p_s,y and −γ·T² · Σ_{i≠y} q_t,i · log q_s,i. Terms: `target`, `other`.

    Feeding a batch twice leaves the values as they are. `batch.labels` names the target class y. Not 0 where the logits
    agree, but there `other` has no gradient. With γ = 0 `other` is not computed.

    Raises:
        RunError: there is one class only, so that no other class is left.
    """

    def __init__(self, options: NKDOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        if setup.num_classes < 2:
            raise RunError(f"`nkd` needs at least 2 classes, not {setup.num_classes}")
        if setup.num_classes == 2 and options.gamma:
            self.notes = ("`nkd`: with two classes one other is left, so the part on the other classes (`gamma`) is 0",)
        self.temperature = options.temperature
        self.gamma = options.gamma

    def forward(
        self, batch: Batch, student: Features, teacher: Features, progress: Progress, *, temperature: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The terms, 0-dim, T² and γ included. `temperature`, 0-dim or (B, 1), replaces the option."""
        logits_s, logits_t = student["logits"], teacher["logits"].detach()
        terms = {"target": target_loss(logits_s, logits_t, batch.labels)}
        if self.gamma:
            scale = self.temperature if temperature is None else temperature
            terms["other"] = self.gamma * other_loss(logits_s, logits_t, batch.labels, scale)
        return terms
