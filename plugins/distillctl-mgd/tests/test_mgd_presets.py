from __future__ import annotations

from pathlib import Path

import pytest

from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load

PROFILES = Path(__file__).parents[3] / "profiles" / "cifar100"


@pytest.mark.parametrize(
    ("pair", "student", "teacher"),
    [
        ("wrn_40_2_wrn_16_2", "final", "final"),
        ("wrn_40_2_ShuffleV1", "last", "final"),
        ("resnet32x4_resnet8x4", "last", "last"),
    ],
)
def test_a_wide_resnet_gives_the_map_that_its_classifier_pools(pair: str, student: str, teacher: str) -> None:
    """Its last stage is a sum before batch normalisation and ReLU, whose squares are ten times as large."""
    (method,) = load(PROFILES / f"{pair}.toml", registry=Registry.load(), method="mgd").methods
    assert (method.options.student_stage, method.options.teacher_stage) == (student, teacher)  # type: ignore[attr-defined]
    assert method.table.weight == 1.2e-3
