"""Any number of processes gives the same bits each time: three epochs on digits with `crd` and `byot`, twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_run_reproduces_itself_bit_for_bit(folder: Path, count: int) -> None:
    first, second = (folder / f"run-{count}-{attempt}" for attempt in ("first", "second"))
    assert (first / "student.safetensors").read_bytes() == (second / "student.safetensors").read_bytes()
    result, again = (json.loads((run / "run.json").read_text())["result"] for run in (first, second))
    assert result == again


@pytest.mark.parametrize("count", [2, 4])
def test_it_is_near_the_run_of_one_process(folder: Path, count: int) -> None:
    """Each process normalises over its own images, so that the weights are others."""
    one, several = (load_file(folder / f"run-{n}-first" / "student.safetensors") for n in (1, count))
    assert {name: value.shape for name, value in one.items()} == {name: value.shape for name, value in several.items()}
    assert all(value.isfinite().all() for value in several.values() if value.is_floating_point())
    assert any((value != several[name]).any() for name, value in one.items())
