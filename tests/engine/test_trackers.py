"""What one tracker does is nothing to the others."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from distillctl.api.tracker import StepReport, Tracker
from distillctl.engine import trackers as module
from distillctl.engine.trackers import Trackers
from distillctl.testing.trackers import REPORT


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
        self.error, self.calls, self.go = error, 0, threading.Event()

    def epoch(self, record: Mapping[str, Any]) -> None:
        self.calls += 1
        assert self.go.wait(20)
        raise self.error


class Hangs(Tracker):
    """In `epoch`, until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.reached = threading.Event(), threading.Event()
        self.told: list[Any] = []

    def batch(self, report: StepReport) -> None:
        self.told.append(report)

    def epoch(self, record: Mapping[str, Any]) -> None:
        self.reached.set()
        assert self.free.wait(20)
        self.told.append(record)

    def close(self) -> None:
        self.told.append("close")


@pytest.fixture
def hangs() -> Iterator[Hangs]:
    """A service that does not answer."""
    tracker = Hangs()
    yield tracker
    tracker.free.set()
    module.left_behind.clear()


def warnings(ours: Keeps) -> list[str]:
    return [told for told in ours.told if isinstance(told, str)]


def test_a_record_that_one_changes_stays_what_it_is() -> None:
    ours, theirs, record = Keeps(), Keeps(), {"epoch": 1, "terms": {"kd": 2.0}}
    trackers = Trackers([ours], {"spoils": Spoils(), "keeps": theirs})
    trackers.epoch(record)
    trackers.close()
    assert ours.told == theirs.told == [{"epoch": 1, "terms": {"kd": 2.0}}] == [record]


@pytest.mark.parametrize(
    "error", [ValueError("no network"), SystemExit(3), OSError(28, "No space left on device"), KeyboardInterrupt("mine")], ids=repr
)
def test_one_that_fails_is_left_out_and_said_once(error: BaseException) -> None:
    ours, fails, theirs = Keeps(), Fails(error), Keeps()
    trackers = Trackers([ours], {"fails": fails, "keeps": theirs})
    trackers.epoch({"epoch": 1})
    trackers.epoch({"epoch": 2})
    fails.go.set()
    trackers.close()
    assert fails.calls == 1
    (warning,) = warnings(ours)
    assert warning.startswith("WARNING: the tracker `fails` failed in `epoch`, and the run goes on without it: ")
    assert [told["epoch"] for told in theirs.told if isinstance(told, dict)] == [1, 2]
    assert module.left_behind == []


def test_one_that_hangs_holds_up_nobody(hangs: Hangs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the run, nor the other trackers, nor the end but for `PATIENCE`; and it may have the rest when it is back."""
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    ours, theirs = Keeps(), Keeps()
    trackers = Trackers([ours], {"hangs": hangs, "keeps": theirs})
    began = time.monotonic()
    for number in range(1, 4):
        trackers.epoch({"epoch": number})
    assert time.monotonic() - began < 0.2
    assert hangs.reached.wait(10)
    trackers.close()
    assert 0.2 <= time.monotonic() - began < 5
    assert warnings(ours) == ["WARNING: the tracker `hangs` was not ready 0.2 s after the run, but in `epoch`: 4 calls may be lost"]
    assert theirs.told == [{"epoch": number} for number in range(1, 4)]
    assert module.left_behind == ["hangs"]


def test_all_that_hang_are_waited_for_together(monkeypatch: pytest.MonkeyPatch, hangs: Hangs) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    ours, many = Keeps(), {f"hangs-{number}": hangs for number in range(4)}
    trackers = Trackers([ours], many)
    trackers.epoch({"epoch": 1})
    began = time.monotonic()
    trackers.close()
    assert time.monotonic() - began < 1.5
    assert len(warnings(ours)) == len(module.left_behind) == 4


def test_a_slow_one_gets_everything_in_order_but_reports_that_wait(hangs: Hangs) -> None:
    ours = Keeps()
    trackers = Trackers([ours], {"slow": hangs})
    trackers.epoch({"epoch": 1})
    assert hangs.reached.wait(10)
    trackers.batch(REPORT)  # the queue is empty: it waits there
    trackers.batch(REPORT)
    trackers.epoch({"epoch": 2})
    trackers.batch(REPORT)
    hangs.free.set()
    trackers.close()
    assert hangs.told == [{"epoch": 1}, REPORT, {"epoch": 2}, "close"]
    assert not warnings(ours)


def test_more_calls_than_may_wait_end_it(hangs: Hangs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    ours = Keeps()
    trackers = Trackers([ours], {"hangs": hangs})
    trackers.epoch({"epoch": 1})
    assert hangs.reached.wait(10)
    for number in range(2, 6):
        trackers.epoch({"epoch": number})
    assert warnings(ours) == ["WARNING: the tracker `hangs` hangs in `epoch`, and the run goes on without it"]
    hangs.free.set()
    trackers.close()
    assert module.left_behind == ["hangs"]


PROGRAM = """
import atexit, sys, threading, time
from distillctl import cli
from distillctl.api.tracker import Tracker
from distillctl.engine import trackers

class Hangs(Tracker):
    def epoch(self, record):
        atexit.register(time.sleep, 60)
        threading.Thread(target=time.sleep, args=(60,)).start()
        time.sleep(60)

def run(arguments):
    told = trackers.Trackers([], {"hangs": Hangs()})
    told.epoch({"epoch": 1})
    told.close()
    print("the result")
    return 7

trackers.PATIENCE, cli.run = 0.3, run
cli.main(["train"])
"""


@pytest.mark.slow
def test_one_that_hangs_does_not_keep_the_program() -> None:
    """Neither its thread, nor a thread of its client, nor what its client wants to be called when Python ends."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=40, check=False)
    assert (done.returncode, done.stdout) == (7, "the result\n"), done.stderr


def test_an_interrupt_ends_the_waiting(hangs: Hangs, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_self: threading.Thread, _timeout: float) -> None:
        raise KeyboardInterrupt

    trackers = Trackers([], {"hangs": hangs})
    trackers.epoch({"epoch": 1})
    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trackers.close()
    monkeypatch.undo()
    assert module.left_behind == ["hangs"]


def test_ours_may_stop_the_run() -> None:
    fails = Fails(OSError(28, "No space left on device"))
    fails.go.set()
    with pytest.raises(OSError, match="No space left"):
        Trackers([fails]).epoch({"epoch": 1})
