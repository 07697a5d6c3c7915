"""Options of `pkd`."""

from __future__ import annotations

from distillctl import Options, StageNames


class PKDOptions(Options):
    """Options of `pkd`."""

    student_stages: StageNames = ["last"]
    """The student's feature maps, shallow to deep; `stages` stands for all stages of the model."""
    teacher_stages: StageNames = ["last"]
    """The teacher's feature maps, in the same order."""
