"""What the tests of several folders share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Nothing that a test converts or unpacks goes into the user's own cache."""
    folder = tempfile.mkdtemp(prefix="distillctl-tests-")
    os.environ["DISTILLCTL_CACHE"] = folder
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runs", type=int, default=0, help="how often the tests in tests/chaos repeat their accident; 0: a few times")
    parser.addoption("--write", action="store_true", help="write the table of pairs into plugins/README.md")


@pytest.fixture(scope="session")
def runs(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """`runs(default)` is what `--runs` says, or the default."""
    return lambda default: request.config.getoption("--runs") or default
