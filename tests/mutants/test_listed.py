"""Every listed mutant fits the source of today: its line stands there once, and its tests exist."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MUTANTS: tuple[Any, ...] = runpy.run_path(str(Path(__file__).with_name("listed.py")))["MUTANTS"]


def test_there_are_enough_and_each_has_its_own_name() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 150


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_source(mutant: Any) -> None:
    assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.old != mutant.new
    assert [place for place in mutant.tests.split() if not (ROOT / place.partition("::")[0]).exists()] == []
