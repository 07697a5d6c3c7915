"""What one tracker does is nothing to the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from distillctl.api.tracker import Tracker
from distillctl.engine.trackers import Trackers


class Keeps(Tracker):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def note(self, text: str) -> None:
        self.told.append(text)

    def epoch(self, record: Mapping[str, Any]) -> None:
        self.told.append(record)


class Spoils(Tracker):
    def epoch(self, record: Mapping[str, Any]) -> None:
        record["terms"]["kd"] = 0.0
        record["epoch"] = 7  # type: ignore[index]


class Fails(Tracker):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error, self.calls = error, 0

    def epoch(self, record: Mapping[str, Any]) -> None:
        self.calls += 1
        raise self.error


def test_a_record_that_one_changes_stays_what_it_is() -> None:
    ours, theirs, record = Keeps(), Keeps(), {"epoch": 1, "terms": {"kd": 2.0}}
    Trackers([ours], {"spoils": Spoils(), "keeps": theirs}).epoch(record)
    assert ours.told == theirs.told == [{"epoch": 1, "terms": {"kd": 2.0}}] == [record]


@pytest.mark.parametrize("error", [ValueError("no network"), SystemExit(3), OSError(28, "No space left on device")], ids=repr)
def test_one_that_fails_is_left_out_and_said_once(error: BaseException) -> None:
    ours, fails, theirs = Keeps(), Fails(error), Keeps()
    trackers = Trackers([ours], {"fails": fails, "keeps": theirs})
    trackers.epoch({"epoch": 1})
    trackers.epoch({"epoch": 2})
    assert fails.calls == 1
    warnings = [told for told in ours.told if isinstance(told, str)]
    assert len(warnings) == 1
    assert warnings[0].startswith("WARNING: the tracker `fails` failed in `epoch`, and the run goes on without it: ")
    assert [told["epoch"] for told in theirs.told if isinstance(told, dict)] == [1, 2]


def test_an_interrupt_passes() -> None:
    with pytest.raises(KeyboardInterrupt, match="stop"):
        Trackers([], {"fails": Fails(KeyboardInterrupt("stop"))}).epoch({"epoch": 1})


def test_ours_may_stop_the_run() -> None:
    with pytest.raises(OSError, match="No space left"):
        Trackers([Fails(OSError(28, "No space left on device"))]).epoch({"epoch": 1})
