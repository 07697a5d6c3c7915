"""Published defaults reach a run through a real profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load

PROFILE = """
[dataset]
name = "imagefolder"
root = "images"
{family}
[student]
name = "torchvision/resnet18"
[teacher]
name = "torchvision/resnet34"
weights = "IMAGENET1K_V1"
[method]
name = "{method}"
[optimizer]
name = "sgd"
lr = 0.1
[train]
epochs = 100
"""


@pytest.mark.parametrize(
    ("method", "key", "anywhere", "imagenet"),
    [
        ("kd", "weight", 0.9, 0.5),
        ("ctkd", "loops", 10.0, 5.0),
        ("ofd", "weight", 1e-3, 1e-4),
        ("dkd", "beta", 8.0, 0.5),
        ("reviewkd", "weight", 5.0, 1.0),
    ],
)
def test_folders_of_imagenet_take_its_defaults(tmp_path: Path, method: str, key: str, anywhere: float, imagenet: float) -> None:
    found: list[Any] = []
    for family in ("", 'family = "imagenet"'):
        path = tmp_path / "profile.toml"
        path.write_text(PROFILE.format(family=family, method=method))
        profile = load(path, registry=Registry.load())
        found.append(profile.resolved["method"][key])  # type: ignore[index, call-overload]
    assert found == [anywhere, imagenet]


@pytest.mark.parametrize(("stated", "expected"), [("", 1.0), ("weight = 3.5", 3.5), ("weight = 5.0", 5.0)])
def test_what_the_profile_states_wins_over_every_preset(tmp_path: Path, stated: str, expected: float) -> None:
    """The package says 5, ImageNet's preset 1."""
    path = tmp_path / "profile.toml"
    path.write_text(PROFILE.format(family='family = "imagenet"', method="reviewkd").replace("[optimizer]", f"{stated}\n[optimizer]"))
    profile = load(path, registry=Registry.load())
    assert profile.methods[0].table.weight == expected
    assert profile.resolved["method"]["weight"] == expected  # type: ignore[index, call-overload]


def test_what_the_command_line_states_wins_too(tmp_path: Path) -> None:
    path = tmp_path / "profile.toml"
    path.write_text(PROFILE.format(family='family = "imagenet"', method="kd"))
    profile = load(path, registry=Registry.load(), overrides=["method.weight=0.25", "method.temperature=2.5"])
    assert profile.methods[0].table.weight == 0.25
    assert profile.methods[0].options.temperature == 2.5  # type: ignore[attr-defined]
