"""What the tests of several folders share."""

from __future__ import annotations

from collections.abc import Callable

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runs", type=int, default=0, help="how often the tests in tests/chaos repeat their accident; 0: a few times")


@pytest.fixture(scope="session")
def runs(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """`runs(default)` is what `--runs` says, or the default."""
    return lambda default: request.config.getoption("--runs") or default
