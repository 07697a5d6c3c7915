"""What a method needs is compared with what a task gives, before anything is loaded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from distillctl.build.checks import _check_reads
from distillctl.errors import ProfileError


def choice(name: str, *reads: str, inner: Any = None) -> Any:
    return SimpleNamespace(spec=SimpleNamespace(name=name, reads=reads), inner=inner)


def test_what_is_wrapped_reads_too() -> None:
    task: Any = SimpleNamespace(gives=("logits",))
    _check_reads(choice("ctkd", "logits", inner=choice("kd", "logits")), task, "boxes")
    with pytest.raises(ProfileError, match="`dkd` reads labels, and `boxes` has none"):
        _check_reads(choice("ctkd", "logits", inner=choice("dkd", "logits", "labels")), task, "boxes")
