"""`unit-scale`: each of the teacher's maps is divided by its root mean square before another method compares it.

    L = L_inner with t / r_l in the place of t,    r_l = √(mean t²) over images, channels and positions of the first batch

t (B, C, H, W) → `teacher`, map l; r (maps,) → `rms`, measured once, and kept in the checkpoint.

Levels of a trained feature pyramid have root mean squares of 6 to 10, whereas what a method makes of the student's maps begins near 1.
Squared distances then begin near 100, and differ by level for no other reason than size. Methods that normalise maps themselves (`at`,
`pkd`, `cwd`) gain nothing by it. That scales are measured on the first batch is after Salimans, Kingma 2016, arXiv 1602.07868; the rest
is ours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distillctl import Batch, Features, Method, Progress, RunError, Setup, Wrapper, gather_rows

_SMALLEST = 1e-12
"""Of a mean square: a map of zeros stays one."""


class UnitScale(Wrapper):
    """The inner method's terms, under their names, with the teacher's maps at a root mean square of 1.

    Measured on the first batch in training, as data-dependent initialisation is (Salimans, Kingma 2016, arXiv 1602.07868); 1 until then.
    With several processes the mean is over the whole batch, with `train.accumulate` over its first part. Vectors and logits stay as they
    are.

    Raises:
        RunError: the inner method reads no map of the teacher.
    """

    rms: Tensor

    def __init__(self, options: Any, setup: Setup, inner: Method) -> None:
        super().__init__(options, setup, inner)
        self.autocast = inner.autocast  # type: ignore[misc]
        self._maps = [name for name, shape in setup.require_teacher().shapes.items() if len(shape) == 3]
        if not self._maps:
            raise RunError(f"`unit-scale` scales the teacher's maps, and `{type(inner).__name__}` reads none")
        self.register_buffer("rms", torch.zeros(len(self._maps)))  # 0: not measured yet

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> dict[str, Tensor]:
        """The terms of the inner method."""
        return self.inner.terms(batch, student, self._scaled(batch, teacher), progress)

    def forward_phase(self, phase: str, batch: Batch, student: Features, teacher: Features, progress: Progress) -> dict[str, Tensor]:
        """The terms of the inner method in its phase, with scaled maps too."""
        return self.inner.terms(batch, student, self._scaled(batch, teacher), progress, phase=phase)

    @torch.no_grad()
    def _scaled(self, batch: Batch, teacher: Features) -> Features:
        if self.training:
            # Measured at every step and used at the first: a test of a number on the device would make the step wait.
            squares = torch.stack([teacher[name].float().square().flatten(1).mean(1) for name in self._maps], 1)
            measured = gather_rows(batch, squares).mean(0).clamp(min=_SMALLEST).sqrt()
            self.rms.copy_(torch.where(self.rms > 0, self.rms, measured))
        rms = torch.where(self.rms > 0, self.rms, 1.0)
        return {**teacher, **{name: teacher[name] / rms[number] for number, name in enumerate(self._maps)}}
