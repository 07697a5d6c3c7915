"""Options of `reviewkd`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distillctl import Options, StageNames


class ReviewKDOptions(Options):
    """Options of `reviewkd`."""

    student_stages: StageNames = ["stages"]
    """The student's feature maps, shallow to deep."""
    teacher_stages: StageNames = ["stages:pre"]
    """The teacher's feature maps, shallow to deep; `["stages"]` for a teacher that declares no pre-activations."""
    pooled: bool = True
    """Add what the classifiers receive as the deepest level, a map of size 1×1."""
    mid_channels: Annotated[int, Field(ge=1)] = 512
    """Channels of the fused maps, but not more than the student's deepest level has."""
    teacher_norm: Literal["running", "batch"] = "running"
    """What the teacher's batch normalisation uses: its running statistics, or those of the batch as in the authors' CIFAR-100 code."""
