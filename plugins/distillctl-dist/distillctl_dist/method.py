"""`dist`: the student's probabilities need not equal the teacher's, they are to rise and fall together.

    L = β · inter + γ · intra
    inter = T² · (1 − mean_B ρ(Y_s[i,:], Y_t[i,:])),    intra = T² · (1 − mean_C ρ(Y_s[:,j], Y_t[:,j]))

Y = softmax(z/T) (B, C); ρ(a, b) = ⟨a − ā, b − b̄⟩ / (‖a − ā‖ · ‖b − b̄‖ + 1e-8), Pearson's correlation.
z_s, z_t (B, C): `student["logits"]`, `teacher["logits"]`; T: `temperature`; β, γ: `beta`, `gamma`.
Huang, You, Wang, Qian, Xu, NeurIPS 2022, arXiv 2205.10536.

Where we differ: the paper's β = γ = 2 are the weight 2 of the profile here, as in the authors' code; a batch of one sample
has no `intra` instead of a meaningless one.
"""

from __future__ import annotations

from torch import Tensor

from distillctl import Batch, Features, Progress, RunError, Setup, TemperatureMethod
from distillctl_dist.losses import inter_loss, intra_loss
from distillctl_dist.options import DISTOptions


class DIST(TemperatureMethod):
    """T² times 1 less the mean correlation: over the batch of the rows (`inter`), over the classes of the columns (`intra`).

    `intra` relates the samples of a batch to each other, of several processes those of this one's share, with `gather` all; for a batch of
    one it is 0. Feeding a
    batch twice leaves both values as they are. Each is between 0 and 2·T², times its factor, and (almost) 0 where the
    logits agree up to a shift of each row: what the 1e-8 of ρ takes from probabilities that hardly vary is left.
    With a temperature for each sample, T² is each sample's own in `inter` and the mean of all in `intra`. A part whose
    factor is 0 is not computed.

    Raises:
        RunError: there is one class only, so that nothing can correlate; or β and γ are both 0, or γ is and there
            are two classes.
    """

    def __init__(self, options: DISTOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        if setup.num_classes < 2:
            raise RunError(f"`dist` needs at least 2 classes, not {setup.num_classes}")
        if options.beta == options.gamma == 0:
            raise RunError(
                "`dist` has nothing to learn from with `beta` and `gamma` both 0", hint="for a student without a teacher: `none`"
            )
        if setup.num_classes == 2 and options.beta:
            if not options.gamma:
                raise RunError("`dist` has nothing to learn from with `gamma = 0` and two classes, which always correlate by 1 or −1")
            self.notes = ("`dist`: with two classes `inter` (`beta`) has no gradient, since two probabilities always correlate by 1 or −1",)
        self.temperature = options.temperature
        self.beta = options.beta
        self.gamma = options.gamma

    def forward(
        self, batch: Batch, student: Features, teacher: Features, progress: Progress, *, temperature: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The terms, 0-dim, T², β and γ included. `temperature`, 0-dim or (B, 1), replaces the option."""
        logits_s, logits_t = student["logits"], teacher["logits"].detach()
        scale = self.temperature if temperature is None else temperature
        terms = {}
        if self.beta:
            terms["inter"] = self.beta * inter_loss(logits_s, logits_t, scale)
        if self.gamma:
            terms["intra"] = self.gamma * intra_loss(logits_s, logits_t, scale)
        return terms
