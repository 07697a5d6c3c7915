"""`lskd`: the logits of both sides are standardised, sample by sample, before another method compares them.

    Z(z) = (z − mean_C z) / √(var_C z + ε),    L = L_inner of Z(z_s) and Z(z_t) at temperature T

z_s, z_t (B, C): `student["logits"]`, `teacher["logits"]`; var: unbiased, divided by C − 1; T: `temperature`. The label loss has the
student's logits as they are; its gradient apart, the one through Z goes through mean and variance too.
Sun, Ren, Li, Wang, Cao, CVPR 2024, arXiv 2403.01427.

Only how the logits of a sample stand to each other is learnt, not their size: z → a·z + b with a > 0 changes nothing. |Z| is at most
(C − 1)/√C, so that no probability gets near 1 (0.6 with 100 classes and T = 2); hence the large weight.

Where we differ: the authors' code divides by 1e-7 + std, whose gradient for (nearly) equal logits is of the size of 1e7, as in the
first step of a classifier that starts at zero; ε = 1e-6 under the root bounds it by 1000 and changes Z by half of ε/var.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distillctl import Batch, Features, Method, Progress, RunError, Setup, TemperatureMethod, Wrapper
from distillctl_lskd.losses import standardise
from distillctl_lskd.options import LSKDOptions

BASE_TEMPERATURE = 2.0


class LSKD(Wrapper, TemperatureMethod):
    """The inner method's terms, under their names, for standardised logits of both sides, arXiv 2403.01427.

    Reduction as the inner method's; it sees no other feature. The temperature is, in this order: that of a method around this one, the
    option, 2 where the inner method takes a temperature, the inner method's own.

    Raises:
        RunError: the option is set, but the inner method takes no temperature; the inner method reads more than logits; there are
            fewer than three classes, so that the standardised logits are always the same.
    """

    def __init__(self, options: LSKDOptions, setup: Setup, inner: Method) -> None:
        super().__init__(options, setup, inner)
        if setup.num_classes < 3:
            raise RunError(f"`lskd` needs at least 3 classes, not {setup.num_classes}: two standardised logits are always ±0.71")
        self.temperature = options.temperature
        if isinstance(inner, TemperatureMethod):
            self.temperature = self.temperature or BASE_TEMPERATURE
        elif self.temperature is not None:
            raise RunError(
                f"`lskd` has `temperature` {self.temperature:g}, but `{type(inner).__name__}` takes none",
                hint="leave `temperature` out, or put `ctkd` around `lskd` instead of into it",
            )
        _check_reads_logits_alone(inner, setup)

    def forward(
        self, batch: Batch, student: Features, teacher: Features, progress: Progress, *, temperature: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The terms of the inner method. `temperature`, 0-dim or (B, 1), takes the place of the option."""
        if temperature is None and self.temperature is not None:
            temperature = student["logits"].new_full((), self.temperature)
        student, teacher = _standardised(student), _standardised(teacher)
        if temperature is None:
            return self.inner.terms(batch, student, teacher, progress)
        return self.inner.terms(batch, student, teacher, progress, temperature=temperature)

    def forward_phase(
        self, phase: str, batch: Batch, student: Features, teacher: Features, progress: Progress
    ) -> Tensor | dict[str, Tensor]:
        """The terms of the inner method in its phase, for standardised logits too."""
        return self.inner.terms(batch, _standardised(student), _standardised(teacher), progress, phase=phase)


def _standardised(features: Features) -> Features:
    return {"logits": standardise(features["logits"])} if features else {}


def _check_reads_logits_alone(inner: Method, setup: Setup) -> None:
    """Asks the inner method for its terms with nothing but logits, if it could have read something else.

    Raises:
        RunError: it cannot do without another feature.
    """
    captured = {name for side in (setup.student, setup.teacher) if side is not None for name in side.shapes} - {"logits"}
    if not captured:
        return
    labels = setup.labels[:2]
    batch = Batch(torch.zeros(len(labels), 3, 8, 8), labels, torch.arange(len(labels)))
    logits = {"logits": torch.zeros(len(labels), setup.num_classes)}
    inner.eval()  # so that nothing is kept of these two samples
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            inner.terms(batch, logits, logits if setup.teacher is not None else {}, Progress(torch.tensor(1.0), torch.tensor(0.0)))
    except KeyError as error:
        if error.args[0] not in captured:
            raise
        while isinstance(inner, Wrapper):
            inner = inner.inner
        raise RunError(
            f"`lskd` standardises logits, but `{type(inner).__name__}` reads `{error.args[0]}`",
            hint="choose a method such as `kd` or `dkd` in [method.inner]",
        ) from error
    inner.train()
