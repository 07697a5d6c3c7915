"""Who is started again and who is not. A shell script stands for the interpreter: what matters is how a process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing import PContext

from distillctl.distributed.launcher import Launcher, launcher
from distillctl.distributed.stop_signals import SIGNALS
from distillctl.errors import RunError

pytestmark = pytest.mark.slow  # every test starts processes

Play = Callable[[str], Path]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """`play(text)` makes every process run this text, in which $TRY counts the starts from 1; gives the folder of its files.

    All of a group begin with it when all are there.
    """

    def make(text: str) -> Path:
        script = tmp_path / "interpreter"
        counting = f'cd "{tmp_path}"; echo >> "starts$RANK"; TRY=$(wc -l < "starts$RANK")'
        others = (
            'for r in $(seq 0 $((WORLD_SIZE - 1))); do while ! sed -n "${TRY}p" "starts$r" 2>&1 | grep -qx ""; do sleep 0.01; done; done'
        )
        stderr = '[ "$RANK" = 0 ] || exec 2> "$DISTILLCTL_GROUP/stderr-$RANK"'
        script.write_text(f"#!/bin/sh\n{stderr}\n{counting}\n{others}\n{text}\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))
        close = PContext.close
        monkeypatch.setattr(PContext, "close", lambda context, death_sig=None, timeout=30: close(context, death_sig, min(timeout, 7)))
        return tmp_path

    return make


def launch(count: int, said: list[str] | None = None, *arguments: str) -> int:
    with launcher(count, arguments or ["train"], (said if said is not None else []).append) as group:
        return group.launch()


def starts(folder: Path, rank: int = 0) -> int:
    file = folder / f"starts{rank}"
    return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_what_they_decide_themselves_is_the_answer_and_is_not_tried_again(play: Play, code: int) -> None:
    folder = play(f"exit {code}")
    assert launch(2) == code
    assert (starts(folder, 0), starts(folder, 1)) == (1, 1)


def test_one_that_decides_ends_the_others(play: Play) -> None:
    folder = play('[ "$RANK" = 1 ] && { echo "error: a profile" >&2; exit 2; }; sleep 100')
    said: list[str] = []
    begin = time.monotonic()
    assert launch(3, said) == 2
    assert time.monotonic() - begin < 30
    assert starts(folder, 2) == 1
    assert said == ["process 1: error: a profile"]


def test_the_decision_of_the_first_is_said_by_the_first(play: Play) -> None:
    """Those that lost it, or repeat it, add nothing."""
    play('[ "$RANK" = 0 ] && exit 1; echo "error: again" >&2; [ "$RANK" = 1 ] && exit 75; exit 1')
    said: list[str] = []
    assert launch(3, said) == 1
    assert said == []


def test_each_knows_who_it_is_and_what_was_asked(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(7), raising=False)
    before = dict(os.environ)
    folder = play('echo "$RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $DISTILLCTL_LAUNCHER $OMP_NUM_THREADS $*" > "said$RANK"')
    assert launch(2, None, "train", "a b.toml", "${local_rank}$$") == 0
    expected = f"2 2 {os.getpid()} 3 -m distillctl train a b.toml ${{local_rank}}$$\n"
    assert [(folder / f"said{rank}").read_text() for rank in range(2)] == [f"{rank} {rank} {expected}" for rank in range(2)]
    assert dict(os.environ) == before


def test_one_process_alone_keeps_its_threads(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job of SLURM with one process has the bits of a plain `train`."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    folder = play('echo "$OMP_NUM_THREADS" > threads')
    assert launch(1) == 0
    assert (folder / "threads").read_text() == "\n"


def test_a_killed_process_starts_the_whole_group_again(play: Play) -> None:
    folder = play('[ "$TRY" = 1 ] && { [ "$RANK" = 1 ] && kill -9 $$; sleep 100; }; echo "$TORCHELASTIC_RESTART_COUNT" >> counts; exit 0')
    said: list[str] = []
    assert launch(2, said) == 0
    assert (starts(folder, 0), starts(folder, 1)) == (2, 2)
    assert said == ["process 1 was killed by SIGKILL, perhaps since memory ran out: all start again from the last checkpoint"]
    assert (folder / "counts").read_text() == "1\n1\n"


def test_one_that_fails_since_another_was_killed_does_not_decide(play: Play) -> None:
    folder = play('[ "$TRY" = 1 ] && { [ "$RANK" = 1 ] && kill -9 $$; trap "exit 1" TERM; while :; do sleep 0.05; done; }; exit 0')
    assert launch(2) == 0
    assert starts(folder) == 2


def test_a_group_whose_processes_lost_each_other_starts_again(play: Play) -> None:
    """Each noticed that the network failed, and none was killed."""
    folder = play('[ "$TRY" = 1 ] && exit 75; exit 0')
    said: list[str] = []
    assert launch(2, said) == 0
    assert said == ["the processes lost each other: all start again from the last checkpoint"]
    assert starts(folder) == 2


def test_a_silent_process_is_ended_even_if_it_stands_still(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else needs to notice: here all stand still."""
    monkeypatch.setenv("DISTILLCTL_PATIENCE", "2")
    folder = play('[ "$TRY" = 1 ] && kill -STOP $$; exit 0')
    said: list[str] = []
    assert launch(2, said) == 0
    assert said == ["process 0 gave no sign of life for 2 s: all start again from the last checkpoint"]
    assert starts(folder) == 2


def test_one_that_gives_signs_is_not_silent(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILLCTL_PATIENCE", "1.5")
    folder = play('for n in $(seq 20); do touch "$DISTILLCTL_GROUP/alive-$LOCAL_RANK"; sleep 0.2; done')
    assert launch(2) == 0
    assert starts(folder) == 1


@pytest.mark.parametrize("code", [2, 143])
def test_one_that_waits_for_another_that_is_gone_does_not_keep_the_command(play: Play, code: int) -> None:
    """One is ended, the other waits to meet it where it listens to no signal."""
    folder = play(f'[ "$RANK" = 1 ] && exit {code}; trap "" TERM; exec sleep 100')
    begin = time.monotonic()
    assert launch(2) == code
    assert time.monotonic() - begin < 30
    assert starts(folder) == 1


def test_restarts_are_bounded(play: Play) -> None:
    folder = play("kill -9 $$")
    said: list[str] = []
    with pytest.raises(RunError, match=r"process 0 was killed by SIGKILL.*, for the 6th time") as caught:
        launch(2, said)
    assert caught.value.exit_code == 1
    assert caught.value.problems[0].hint.startswith("the last checkpoint is kept")
    assert starts(folder) == 6
    assert len(said) == 5


def signalled_when_started(folder: Path, number: int) -> None:
    def send() -> None:
        while not ((folder / "starts0").exists() and (folder / "starts1").exists()):
            time.sleep(0.02)
        time.sleep(0.3)
        os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()


@pytest.mark.parametrize(("number", "code"), [(number, 130 if number == signal.SIGINT else 143) for number in SIGNALS])
@pytest.mark.parametrize("text", ["exec sleep 100", 'trap "exit 75" TERM INT USR1; while :; do sleep 0.05; done'])
def test_a_signal_is_passed_on_and_gives_the_code(play: Play, number: signal.Signals, code: int, text: str) -> None:
    """Also where a process was killed by it, since it did not listen yet."""
    folder = play(text)
    signalled_when_started(folder, number)
    assert launch(2) == code
    assert (starts(folder, 0), starts(folder, 1)) == (1, 1)


def test_they_have_as_long_as_they_need_to_save(play: Play) -> None:
    """Longer than the agent waits for processes that it ends itself."""
    folder = play('trap "sleep 2.5; touch saved$RANK; exit 143" TERM; while :; do sleep 0.05; done')
    signalled_when_started(folder, signal.SIGTERM)
    assert launch(2) == 143
    assert (folder / "saved0").exists()
    assert (folder / "saved1").exists()


def test_a_signal_that_comes_before_the_group_is_there_ends_it(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = play("exec sleep 100")
    with launcher(2, ["train"], print) as group:
        os.kill(os.getpid(), signal.SIGINT)
        assert group.launch() == 130
    assert starts(folder) == 0
    popen = subprocess.Popen.__init__

    def starting(*arguments: object, **named: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        popen(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(subprocess.Popen, "__init__", starting)
    begin = time.monotonic()
    assert launch(2) == 143
    assert time.monotonic() - begin < 30


def test_a_done_run_is_done_although_a_signal_came(play: Play) -> None:
    play('trap "exit 0" TERM; sleep 0.2; kill -TERM "$DISTILLCTL_LAUNCHER"; while :; do sleep 0.05; done')
    assert launch(1) == 0


@pytest.mark.parametrize(("text", "code"), [('trap "exit 143" TERM', 0), ('trap "exit 1" TERM', 1), ('trap "" TERM', 0)])
def test_the_end_can_be_waited_for_where_the_agent_stands_still(play: Play, text: str, code: int) -> None:
    """As submitit does, in its handler of a signal. One that does not end in time is killed."""
    folder = play(f"{text}; touch ready$RANK; while :; do sleep 0.05; done")
    found: list[int] = []

    def stop(group: Launcher) -> None:
        group.stop()
        found.append(group.end(1.5))
        raise KeyboardInterrupt

    with launcher(2, ["train"], print) as group:
        before = signal.signal(signal.SIGUSR2, lambda *_: stop(group))

        def send() -> None:
            while not ((folder / "ready0").exists() and (folder / "ready1").exists()):
                time.sleep(0.02)
            os.kill(os.getpid(), signal.SIGUSR2)

        threading.Thread(target=send, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            group.launch()
        signal.signal(signal.SIGUSR2, before)
    assert found == [code]
