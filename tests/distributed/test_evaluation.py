"""An evaluation gives the same with 1, 2 and 4 processes: three batches, so that one of four has none, and the last of six images."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("what", ["memory", "memory flip", "files", "files flip", "files ten_crop"])
def test_every_process_has_the_evaluation_of_one(found: dict[int, dict[str, Any]], what: str) -> None:
    ((metrics, *tensors),) = found[1]["evaluations"][what]
    assert metrics["count"] == 70
    assert len(set(tensors[0].tolist())) > 1, "guesses differ"
    for count in (2, 4):
        results = found[count]["evaluations"][what]
        assert len(results) == count
        for theirs, *others in results:
            assert theirs == metrics
            assert all(torch.equal(a, b) for a, b in zip(others, tensors, strict=True))
