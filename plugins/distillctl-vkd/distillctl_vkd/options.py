"""Options of `vkd`."""

from __future__ import annotations

from distillctl import Options, StageName


class VkDOptions(Options):
    """Options of `vkd`."""

    student_stage: StageName = "pooled"
    """The student's feature: what its classifier receives, or another one; maps and tokens are averaged over their positions."""
    teacher_stage: StageName = "pooled"
    """The teacher's feature, likewise."""
