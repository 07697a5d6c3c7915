"""Calibration equals a plain loop, and what `eval` tells."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from distillctl.analysis.calibration import reliability
from distillctl.builtin.classification_details import calibration_error


def by_hand(confidence: list[float], right: list[bool], bins: int) -> list[tuple[float, float, int]]:
    """For each bin (a, b] that has images: mean confidence, accuracy, images."""
    found = []
    for i in range(bins):
        within = [k for k, sure in enumerate(confidence) if i / bins < sure <= (i + 1) / bins]
        if within:
            count = len(within)
            found.append((sum(confidence[k] for k in within) / count, sum(right[k] for k in within) / count, count))
    return found


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_bins_are_those_of_a_plain_loop(bins: int) -> None:
    draw = np.random.default_rng(3)
    confidence = [*draw.uniform(0.02, 1, 60).tolist(), 0.25, 0.5, 1.0]  # edges belong to the bin below them
    right = (draw.uniform(size=63) < 0.6).tolist()
    found, expected = reliability(np.array(confidence), np.array(right), bins), by_hand(confidence, right, bins)
    assert found.count.tolist() == [count for _, _, count in expected]
    assert found.confidence == pytest.approx([sure for sure, _, _ in expected])
    assert found.accuracy == pytest.approx([share for _, share, _ in expected])
    error = math.fsum(count / 63 * abs(share - sure) for sure, share, count in expected)
    assert found.error == pytest.approx(error)


def test_the_error_is_that_of_eval() -> None:
    draw = np.random.default_rng(5)
    confidence, right = draw.uniform(0.1, 1, 200).astype(np.float32), draw.uniform(size=200) < 0.5
    expected = calibration_error(torch.from_numpy(confidence).double(), torch.from_numpy(right))
    assert reliability(confidence, right).error == pytest.approx(expected, rel=1e-12)
