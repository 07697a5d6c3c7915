"""Options of `cc`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distillctl import Options, StageName


class CCOptions(Options):
    """Options of `cc`."""

    variant: Literal["repdistiller", "kernel"] = "repdistiller"
    """What is compared: differences of the two sides in neighbouring samples, or the kernel matrices of the paper."""
    feat_dim: Annotated[int, Field(ge=0)] = 128
    """Length of the trained embeddings of both sides; 0 compares the features themselves."""
    gamma: Annotated[float, Field(gt=0)] = 0.4
    """Of `kernel`: γ in exp(−γ‖x − y‖²), the larger the narrower the kernel."""
    order: Annotated[int, Field(ge=1)] = 2
    """Of `kernel`: the highest power of its Taylor series."""
    squared: bool = True
    """Of `kernel`: take the squared norm of the difference of the matrices, as the paper does, and not the norm, as torchdistill does."""
    student_stage: StageName = "pooled"
    """The student's feature: what its classifier receives, or another one, of any shape."""
    teacher_stage: StageName = "pooled"
    """The teacher's feature, likewise."""
