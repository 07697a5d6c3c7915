"""Options of `mgd`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distillctl import Options, StageName


class MGDOptions(Options):
    """Options of `mgd`."""

    student_stage: StageName = "last"
    """The student's feature map: a stage, `last`, `final`, or a module path."""
    teacher_stage: StageName = "last"
    """The teacher's feature map: a stage, `last`, `final`, or a module path."""
    mask: Literal["channel", "spatial"] = "channel"
    """What one draw of the mask hides: a whole channel (classification), or a position in all channels (dense prediction)."""
    mask_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """λ, the probability that a channel or a position is hidden."""
    normalize: Literal["sum", "mean"] = "sum"
    """Reduction over channels and positions. `sum` is the paper's; `mean` divides by C·H·W, so that one weight suits maps of any size."""
    decay_biases: bool | None = None
    """Whether the biases of generator and alignment decay where the optimizer's `decay = "weights"` spares biases; unset, they do not."""
