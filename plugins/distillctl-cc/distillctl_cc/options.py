"""Options of `cc`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distillctl import Options, StageName


class CCOptions(Options):
    """Options of `cc`."""

    variant: Literal["repdistiller", "kernel"] = "repdistiller"
    """What is compared: differences of the two sides in neighbouring samples, or the kernel matrices of the paper."""
    feat_dim: Annotated[int, Field(ge=0)] | None = None
    """Length of the trained embeddings of both sides, 128 if unset; 0 compares the features themselves, as `kernel` always does."""
    gamma: Annotated[float, Field(ge=1e-6, le=1e3)] = 0.4
    """Of `kernel`: γ in exp(−γ‖x − y‖²), the larger the narrower the kernel."""
    order: Annotated[int, Field(ge=1, le=50)] = 2
    """Of `kernel`: the highest power of its Taylor series."""
    squared: bool = True
    """Of `kernel`: take the squared norm of the difference of the matrices, as the paper does, and not the norm, as torchdistill does."""
    student_stage: StageName = "pooled"
    """The student's feature: what its classifier receives, or another one, of any shape."""
    teacher_stage: StageName = "pooled"
    """The teacher's feature, likewise."""

    @model_validator(mode="after")
    def _suits_the_variant(self) -> Self:
        if self.variant == "kernel":
            if self.feat_dim:
                raise ValueError("`kernel` takes no `feat_dim`: trained embeddings of both sides would become the same constant")
            return self
        for name in ("gamma", "order", "squared"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` belongs to the variant `kernel`; `{self.variant}` has none")
        return self

    @property
    def embedding(self) -> int:
        """Length of the embeddings, 0 if there are none."""
        if self.feat_dim is not None:
            return self.feat_dim
        return 128 if self.variant == "repdistiller" else 0
