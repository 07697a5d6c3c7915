"""Paths in options: what can be no path is wrong in the profile, and no error of the system later."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from distillctl import Options, PathOption


class Rooted(Options):
    root: PathOption


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert Rooted.model_validate({"root": "~/data"}).root == Path("/home/somebody/data")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("~nobody_of_this_name/data", "`~nobody_of_this_name/data` begins with the home folder of a user who has none"),
        ("a" * 256, "is longer than a path can be"),
        ("é" * 128, "is longer than a path can be"),
        ("x/" * 3000, "is longer than a path can be"),
    ],
)
def test_what_can_be_no_path(value: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Rooted.model_validate({"root": value})


def test_the_longest_name_is_a_path() -> None:
    assert Rooted.model_validate({"root": "a" * 255}).root == Path("a" * 255)


def test_a_path_comes_back_from_json() -> None:
    """As `model.json` of a run has it."""
    found = Rooted.model_validate({"root": "~/weights.pth"})
    assert Rooted.model_validate_json(found.model_dump_json()) == found
    assert found.root == Path("~/weights.pth").expanduser()
