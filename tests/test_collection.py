"""No test is left out without a word."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_every_folder_of_tests_is_gone_through(pytestconfig: pytest.Config) -> None:
    """pytest leaves folders of certain names out, by default also `build` and `dist`."""
    left_out = pytestconfig.getini("norecursedirs")
    files = [path.relative_to(ROOT) for top in ("tests", "plugins") for path in (ROOT / top).rglob("test_*.py")]
    parts = {part for path in files for part in path.parts[:-1] if ".venv" not in path.parts}
    assert {"tests", "build", "plugins"} <= parts
    assert not [part for part in parts if any(fnmatch(part, pattern) for pattern in left_out)]
