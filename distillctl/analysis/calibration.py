"""How far a network's confidence and its accuracy lie apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""As `eval` has them, and most papers."""


@dataclass(frozen=True)
class Reliability:
    """Means over the images of each bin of the confidence that has any.

    confidence, accuracy: float64, (B,), both in [0, 1].
    count: int64, (B,), images.
    error: the expected calibration error, Σ count/N · |accuracy − confidence|.
    """

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    count: NDArray[np.int64]
    error: float


def reliability(confidence: NDArray[np.floating], right: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Bins of equal width (a, b], as Guo, Pleiss, Sun and Weinberger 2017 (arXiv 1706.04599) have them.

    Args:
        confidence: (N,), the largest probability of each answer.
        right: (N,), whether that class is the label.
        bins: how many.
    """
    sure = confidence.astype(np.float64)
    place = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    there = count > 0
    means = [np.bincount(place, weights=values, minlength=bins)[there] / count[there] for values in (sure, right.astype(np.float64))]
    error = float((count[there] * np.abs(means[1] - means[0])).sum() / max(1, len(sure)))
    return Reliability(means[0], means[1], count[there], error)
