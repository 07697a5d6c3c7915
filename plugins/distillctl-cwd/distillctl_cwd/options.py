"""Options of `cwd`."""

from __future__ import annotations

from distillctl import Options, StageNames, Temperature


class CWDOptions(Options):
    """Options of `cwd`."""

    student_stages: StageNames = ["last"]
    """The student's feature maps, shallow to deep; `stages` stands for all stages of the model."""
    teacher_stages: StageNames = ["last"]
    """The teacher's feature maps, in the same order."""
    temperature: Temperature = 1.0
    """T, what the activations are divided by before the softmax. The larger, the more the weaker positions of a channel count."""
