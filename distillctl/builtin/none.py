"""`none`: no distillation, for teachers and controls. L = CE(z_s, y), which the engine computes as the task loss."""

from __future__ import annotations

from torch import Tensor

from distillctl.api.method import Batch, Features, Method, Progress


class NoMethod(Method):
    """Adds nothing to the label loss: no terms, no parameters, no features."""

    in_main = False  # nothing to evaluate

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> dict[str, Tensor]:
        """No terms."""
        return {}
