"""What a teacher takes the targets of a batch for, and what a method makes of that before the student's forward."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class Guesses(NamedTuple):
    """What a teacher takes the targets of a batch for: G guesses, of all its images.

    scores: float32, (G,), how sure it is of each, 0 to 1.
    images: int64, (G,), the image of the batch to which each belongs.
    labelled: bool, (B,), the images that have targets of their own.
    content: what each guess says; only the task looks into it.
    """

    scores: Tensor
    images: Tensor
    labelled: Tensor
    content: Any = None


class Relabels(NamedTuple):
    """What the student learns from in their place.

    weights: float32, (G,), factor of each guess in the label loss; a guess of weight 0 is left out.
    images: bool, (B,), the images whose targets are replaced by guesses.
    """

    weights: Tensor
    images: Tensor


__all__ = ["Guesses", "Relabels"]
