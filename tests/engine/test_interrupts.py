"""When a run saves within an epoch, and how a signal ends it."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from distillctl.distributed.process_group import ALONE
from distillctl.distributed.stop_signals import SIGNALS, exit_code
from distillctl.engine.interrupts import Interrupts, Pause

TWICE = """
import os, signal, sys, time
from distillctl.engine.interrupts import Interrupts
from distillctl.distributed.process_group import ALONE
from distillctl.distributed.stop_signals import SIGNALS, exit_code
with Interrupts(ALONE, 1e9) as pauses:
    os.kill(os.getpid(), int(sys.argv[1]))
    print("noted", pauses.after_step().stop, flush=True)
    time.sleep(float(sys.argv[3]))
    os.kill(os.getpid(), int(sys.argv[2]))
    time.sleep(60)
    print("still there")
"""


class Several:
    """This process among others, of which the test says what they have."""

    count = 2

    def __init__(self, *, first: bool, others: tuple[int, ...] = (0, 0, 0)) -> None:
        self.first, self.others, self.asked = first, others, 0

    def all_reduce_max(self, *values: int) -> list[int]:
        self.asked += 1
        return [max(pair) for pair in zip(values, self.others, strict=False)]


@pytest.mark.parametrize(("number", "code"), [(number, 130 if number == signal.SIGINT else 143) for number in SIGNALS])
def test_a_signal_is_noted_and_told_after_the_step(number: signal.Signals, code: int) -> None:
    with Interrupts(ALONE, math.inf) as pauses:
        assert pauses.after_step() == Pause()
        assert pauses.stopped_alone == 0
        os.kill(os.getpid(), number)
        assert pauses.after_step() == Pause(save=False, stop=number)
        assert pauses.stopped_alone == pauses.stopping() == number
    assert exit_code(number) == code


@pytest.mark.slow
@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_signal_ends_the_process_at_once(first: signal.Signals, second: signal.Signals) -> None:
    command = [sys.executable, "-c", TWICE, str(int(first)), str(int(second)), "0" if first != second else "1.2"]
    begin = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (exit_code(second), f"noted {int(first)}\n", "")
    assert time.monotonic() - begin < 55


def test_the_same_signal_at_the_same_moment_is_one() -> None:
    """A batch system sends it to every process of a job, and a launcher passes it on."""
    with Interrupts(ALONE, math.inf) as pauses:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert pauses.after_step().stop == signal.SIGTERM


def test_a_signal_that_nobody_asked_for_any_more_is_sent_again_to_who_listens_then() -> None:
    heard: list[int] = []
    number = signal.SIGTERM
    before = signal.signal(number, lambda heard_number, _: heard.append(heard_number))
    try:
        with Interrupts(ALONE, math.inf):
            os.kill(os.getpid(), number)
        assert heard == [number]
    finally:
        signal.signal(number, before)


def test_the_handlers_from_before_come_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interrupts(ALONE, 1):
        assert all(signal.getsignal(n) != handler for n, handler in zip(SIGNALS, before, strict=True))
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_thread_trains_without_signals() -> None:
    """Only the main thread may set handlers; a notebook's or a server's thread trains all the same."""
    seen: list[Any] = []

    def run() -> None:
        with Interrupts(ALONE, 0) as pauses:
            seen.append(pauses.after_step())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [Pause(save=True)]


def test_a_checkpoint_is_due_when_the_time_is_over_and_not_again_after_it_was_saved() -> None:
    pauses = Interrupts(ALONE, 0.05)
    assert not pauses.after_step().save
    time.sleep(0.06)
    assert pauses.after_step().save
    assert pauses.after_step().save, "until it is saved"
    pauses.saved()
    assert not pauses.after_step().save
    assert Interrupts(ALONE, 0.0).after_step().save
    assert not Interrupts(ALONE, math.inf).after_step().save


def test_a_signal_in_another_process_stops_this_one_too() -> None:
    pauses = Interrupts(Several(first=True, others=(signal.SIGTERM, 0, 0)), math.inf)  # type: ignore[arg-type]
    assert pauses.after_step() == Pause(stop=signal.SIGTERM)
    assert pauses.stopped_alone == 0


def test_the_first_process_says_when_all_save_and_ask_again() -> None:
    """The clocks of two processes differ, but what they do after a step must not."""
    other = Several(first=False, others=(0, 1, 3))
    pauses = Interrupts(other, 0.0)  # type: ignore[arg-type]
    saves = [pauses.after_step().save for _ in range(7)]
    assert saves == [True, False, False, True, False, False, True]
    assert other.asked == 3
    alone = Interrupts(Several(first=False), 0.0)  # type: ignore[arg-type]
    assert not alone.after_step().save, "its own clock does not count"


@pytest.mark.parametrize(("seconds", "least", "most"), [(0.001, 35, 45), (0.1, 95, 220), (3.0, 400, 400)])
def test_several_agree_about_four_times_a_second_however_short_a_step_is(
    monkeypatch: pytest.MonkeyPatch, seconds: float, least: int, most: int
) -> None:
    clock = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    others = Several(first=True)
    pauses = Interrupts(others, math.inf)  # type: ignore[arg-type]
    steps = 400 if seconds >= 0.1 else 10_000
    for _ in range(steps):
        clock += seconds
        pauses.after_step()
    assert least <= others.asked <= most
