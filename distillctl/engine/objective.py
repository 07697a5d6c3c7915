"""Everything that is trained, as one module: the student and the methods, with the objective as its forward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillctl.api.method import Batch, Features, Method, Progress, fp32
from distillctl.features import Tapped

TASK = "task"
"""Name of the label loss among the terms."""


@dataclass(frozen=True)
class Weighted:
    """A method with its name in the record, its weight, and the epochs over which the weight grows."""

    name: str
    method: Method
    weight: float
    warmup_epochs: float = 0.0


class Objective(nn.Module):
    """task_weight · CE(z_s, y) + Σ weight · min(epoch / warmup_epochs, 1) · term, over the terms of all methods.

    student: the tapped student.
    methods: in the order of the profile. A method (or the label loss) of weight 0 is not evaluated.
    label_smoothing: of the label loss alone.
    """

    def __init__(self, student: Tapped, methods: Sequence[Weighted], *, task_weight: float, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.student = student
        self.weighted = tuple(m for m in methods if m.weight > 0)
        self.methods = nn.ModuleDict({m.name: m.method for m in methods})
        self.task_weight = task_weight
        self.label_smoothing = label_smoothing

    def losses(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and every unweighted term by name: `task`, `kd`, `dkd.tckd`, …; all float32 and 0-dim."""
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), device=batch.images.device)
        if self.task_weight > 0:
            with fp32(batch.images.device):
                terms[TASK] = F.cross_entropy(student["logits"].float(), batch.labels, label_smoothing=self.label_smoothing)
            total = total + self.task_weight * terms[TASK]
        for entry in self.weighted:
            weight: Tensor | float = entry.weight
            if entry.warmup_epochs > 0:
                weight = entry.weight * (progress.epoch / entry.warmup_epochs).clamp(max=1.0)
            for key, value in entry.method.terms(batch, student, teacher, progress).items():
                terms[f"{entry.name}.{key}" if key else entry.name] = value
                total = total + weight * value
        return total, terms

    def forward(self, batch: Batch, teacher: Features, progress: Progress) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The sum to minimise, the terms, and the student's logits (B, C)."""
        student = self.student(batch.images)
        total, terms = self.losses(batch, student, teacher, progress)
        return total, terms, student["logits"]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The student's parameters, then each method's groups; every trained parameter exactly once."""
        groups: list[dict[str, Any]] = [{"params": [p for p in self.student.parameters() if p.requires_grad]}]
        for entry in self.weighted:
            groups += entry.method.parameter_groups()
        return [g for g in groups if g["params"]]

    def after_step(self) -> None:
        """Lets the methods update what is not trained by gradients."""
        for entry in self.weighted:
            entry.method.after_step()

    def metrics(self) -> Iterator[tuple[str, Tensor]]:
        """What the methods report beside their terms."""
        for entry in self.weighted:
            for key, value in entry.method.metrics().items():
                yield f"{entry.name}.{key}", value
