"""Options of `pseudo`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distillctl import Options


class PseudoOptions(Options):
    """Options of `pseudo`."""

    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Answers of the teacher with a smaller score, the probability of a class or the score of a box, are left out."""
    images: Literal["unlabelled", "all"] | None = None
    """Which images learn from the teacher's answers: those without labels, beside the others and their labels; or `all`, in place of the
    labels. By default those without labels where there are some, otherwise all."""
    soft: bool = True
    """The score is the weight of an answer in the label loss. `false`: each counts once."""
