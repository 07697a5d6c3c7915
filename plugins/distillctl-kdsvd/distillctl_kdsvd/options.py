"""Options of `kdsvd`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distillctl import Options, StageNames


class KDSVDOptions(Options):
    """Options of `kdsvd`."""

    student_stages: StageNames = ["stages"]
    """The student's feature maps, shallow to deep, at least two; `stages` stands for all declared stages without the stem."""
    teacher_stages: StageNames = ["stages"]
    """The teacher's feature maps, one for each of the student's."""
    variant: Literal["channels", "width"] = "channels"
    """Matrix of an image: `channels` is (H·W, C), the paper's, for sides with equal channels; `width` is (C·H, W), for any channels."""
    vectors: Annotated[int, Field(ge=1)] = 1
    """k, how many of the teacher's singular vectors are matched; the student's are sought among its k + 3 main ones."""
