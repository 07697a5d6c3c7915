"""Options of `sp`."""

from __future__ import annotations

from typing import Literal

from distillctl import Options, StageNames


class SPOptions(Options):
    """Options of `sp`."""

    student_stages: StageNames = ["last"]
    """The student's features, shallow to deep; of any shape, and `stages` stands for all stages of the model."""
    teacher_stages: StageNames = ["last"]
    """The teacher's features, in the same order."""
    row_norm: Literal["l2", "l1"] = "l2"
    """Rows of the similarity matrices are divided by their length, or (`l1`, as in two other libraries) by the sum of absolute values."""
