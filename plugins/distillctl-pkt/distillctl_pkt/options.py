"""Options of `pkt`."""

from __future__ import annotations

from distillctl import Epsilon, Options, StageName


class PKTOptions(Options):
    """Options of `pkt`."""

    student_stage: StageName = "pooled"
    """The student's feature: what its classifier receives, or another one, of any shape."""
    teacher_stage: StageName = "pooled"
    """The teacher's feature, likewise."""
    eps: Epsilon = 1e-7
    """Added to the probabilities of both sides within the logarithm."""
