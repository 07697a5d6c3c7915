"""Whether a detector in a file finds the same boxes as its student."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SCORE, PIXELS = 1e-4, 0.01
"""By how much the score and the edges of a box may differ."""
SHARE = 0.95
"""Of the images on which all boxes must be the same. Where two boxes overlap just as much as suppression allows, the last bit decides."""

OUTPUTS = ("boxes", "labels", "scores")


def differences(one: Sequence[Tensor], other: Sequence[Tensor]) -> tuple[float, float] | None:
    """The largest difference of a score and of an edge in pixels between the boxes of one image; None if they are not the same boxes.

    Boxes of nearly the same score may have changed places.

    Args:
        one: what `OUTPUTS` names: (N, 4), (N,) and (N,).
        other: the same of the other network.
    """
    if len(one[2]) != len(other[2]):
        return None
    if not len(one[2]):
        return 0.0, 0.0
    scores, edges = (one[2][:, None] - other[2]).abs(), (one[0][:, None] - other[0]).abs().amax(2)  # (N, N)
    fits = (one[1][:, None] == other[1]) & (scores <= SCORE) & (edges <= PIXELS)  # NaN fits nothing
    if not bool((fits.any(0) & fits.any(1)).all()):
        return None
    nearest = edges.where(fits, torch.inf).argmin(1, keepdim=True)
    return float(scores.gather(1, nearest).max()), float(edges.gather(1, nearest).max())
