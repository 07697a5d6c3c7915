from __future__ import annotations

from pathlib import Path

import pytest

from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load

PROFILES = Path(__file__).parents[3] / "profiles" / "cifar100"


@pytest.mark.parametrize(
    ("pair", "weight"),
    [
        ("resnet32x4_resnet8x4", 5.0),
        ("resnet32x4_ShuffleV1", 5.0),
        ("resnet32x4_ShuffleV2", 8.0),
        ("wrn_40_2_wrn_16_2", 5.0),
        ("wrn_40_2_wrn_40_1", 5.0),
        ("wrn_40_2_ShuffleV1", 5.0),
        ("resnet56_resnet20", 0.6),
        ("resnet110_resnet32", 1.0),
        ("vgg13_MobileNetV2", 5.0),  # not published: the default
    ],
)
def test_weights_of_the_authors(pair: str, weight: float) -> None:
    (method,) = load(PROFILES / f"{pair}.toml", registry=Registry.load(), method="reviewkd").methods
    assert (method.table.weight, method.table.warmup_epochs) == (weight, 20.0)
    assert method.options.teacher_stages == ["stages:pre"]  # type: ignore[attr-defined]
