"""Options of `ofd`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from distillctl import Options, StageNames


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("a kernel of even size would shift the map; choose an odd one")
    return value


class OFDOptions(Options):
    """Options of `ofd`."""

    student_stages: StageNames = ["stages:pre"]
    """The student's maps, shallow to deep: stages before their last ReLU, or module paths."""
    teacher_stages: StageNames = ["stages:pre"]
    """The teacher's maps, shallow to deep; paired by name where one side alone names its stages, else from the deepest."""
    kernel_size: Annotated[int, Field(ge=1), AfterValidator(_odd)] = 1
    """Kernel of the connectors' convolutions; odd."""
    teacher_norm: Literal["batch", "running"] = "batch"
    """Statistics that the teacher's batch normalisation uses: the batch's, as the authors do, or its running ones. It is not changed."""
    margin_norms: list[Annotated[str, Field(min_length=1)]] = []
    """Paths of the teacher's batch normalisations that give the margins, one for each compared stage; empty finds them."""
