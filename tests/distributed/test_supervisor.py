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

from distillctl.distributed import heartbeat, supervisor
from distillctl.distributed.supervisor import supervise
from distillctl.errors import RunError

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
        script.write_text(f"#!/bin/sh\n{counting}\n{others}\n{text}\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))
        monkeypatch.setattr(supervisor, "_LONGEST_PAUSE", 0.05)
        monkeypatch.setattr(supervisor.heartbeat, "GRACE", 0.5)
        return tmp_path

    return make


def starts(folder: Path, rank: int = 0) -> int:
    file = folder / f"starts{rank}"
    return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_what_they_decide_themselves_is_the_answer_and_is_not_tried_again(play: Play, code: int) -> None:
    folder = play(f"exit {code}")
    said: list[str] = []
    assert supervise(2, ["train"], said.append) == code
    assert (starts(folder, 0), starts(folder, 1)) == (1, 1)


def test_one_that_decides_ends_the_others(play: Play) -> None:
    folder = play('[ "$RANK" = 1 ] && { echo "error: a profile" >&2; exit 2; }; sleep 100')
    said: list[str] = []
    begin = time.monotonic()
    assert supervise(3, ["train"], said.append) == 2
    assert time.monotonic() - begin < 30
    assert starts(folder, 2) == 1
    assert said == ["process 1: error: a profile"]


def test_each_knows_who_it_is_and_what_was_asked(play: Play) -> None:
    folder = play('echo "$RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $DISTILLCTL_SUPERVISOR $*" > "said$RANK"')
    assert supervise(2, ["train", "a b.toml", "--nproc", "2"], print) == 0
    expected = f"2 2 {os.getpid()} -m distillctl train a b.toml --nproc 2\n"
    assert [(folder / f"said{rank}").read_text() for rank in range(2)] == [f"{rank} {rank} {expected}" for rank in range(2)]


def test_a_killed_process_starts_the_whole_group_again(play: Play) -> None:
    folder = play('[ "$TRY" = 1 ] && { [ "$RANK" = 1 ] && kill -9 $$; sleep 100; }; exit 0')
    said: list[str] = []
    assert supervise(2, ["train"], said.append) == 0
    assert (starts(folder, 0), starts(folder, 1)) == (2, 2)
    assert said == [
        "process 1 was killed by SIGKILL, perhaps since memory ran out, before the first step: "
        "all 2 processes start again from the last checkpoint in 0.05 s"
    ]


def test_a_group_whose_processes_lost_each_other_starts_again(play: Play) -> None:
    """Each noticed that the network failed, and none was killed."""
    folder = play('[ "$TRY" = 1 ] && exit 75; exit 0')
    assert supervise(2, ["train"], print) == 0
    assert starts(folder) == 2


def test_a_silent_process_is_ended_even_if_it_stands_still(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILLCTL_PATIENCE", "0.5")
    folder = play('[ "$TRY" = 1 ] && kill -STOP $$; exit 0')
    said: list[str] = []
    assert supervise(2, ["train"], said.append) == 0
    assert "gave no sign of life for 0.5 s before the first step" in said[0]
    assert starts(folder) == 2


@pytest.mark.parametrize("code", [75, 143])
def test_one_that_waits_for_another_that_is_gone_does_not_keep_the_command(play: Play, code: int) -> None:
    """Two that start: one is ended, the other waits to meet it where it listens to no signal."""
    folder = play(f'[ "$TRY$RANK" = 11 ] && exit {code}; [ "$TRY" = 1 ] && {{ trap "" TERM; exec sleep 100; }}; exit 0')
    begin = time.monotonic()
    said: list[str] = []
    assert supervise(2, ["train"], said.append) == 0
    assert time.monotonic() - begin < 30
    assert "others did not follow it, before the first step" in said[0]
    assert starts(folder) == 2


def test_three_deaths_at_one_step_are_enough(play: Play) -> None:
    folder = play("kill -9 $$")
    said: list[str] = []
    with pytest.raises(RunError, match=r"killed by SIGKILL.* before the first step, for the 3rd time there") as caught:
        supervise(2, ["train"], said.append)
    assert caught.value.exit_code == 1
    assert caught.value.problems[0].hint.startswith("the last checkpoint is kept")
    assert starts(folder) == 3
    assert len(said) == 2


def test_deaths_at_other_steps_do_not_count_together(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of weeks may lose many processes, each after more was done."""
    folder = play('[ "$TRY" -lt 6 ] && kill -9 $$; exit 0')
    monkeypatch.setattr(heartbeat, "read", lambda _: [(time.monotonic(), starts(folder) * 10)])
    said: list[str] = []
    assert supervise(1, ["train"], said.append) == 0
    assert [line.partition(" step ")[2].partition(":")[0] for line in said] == ["10", "20", "30", "40", "50"]


def test_the_pause_doubles_up_to_half_a_minute(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = play('[ "$TRY" -lt 9 ] && kill -9 $$; exit 0')
    monkeypatch.setattr(supervisor, "_LONGEST_PAUSE", 30.0)
    monkeypatch.setattr(heartbeat, "read", lambda _: [(time.monotonic(), starts(folder))])
    waited: list[float] = []
    monkeypatch.setattr(supervisor._Signals, "wait", lambda _, seconds: bool(waited.append(seconds)))
    assert supervise(1, ["train"], print) == 0
    assert waited == [1, 2, 4, 8, 16, 30, 30, 30]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 143)])
@pytest.mark.parametrize("text", ["exec sleep 100", 'trap "exit 75" TERM INT USR1; while :; do sleep 0.05; done'])
def test_a_signal_is_passed_on_and_gives_the_code(play: Play, number: signal.Signals, code: int, text: str) -> None:
    """Also where a process was killed by it, since it did not listen yet."""
    folder = play(text)

    def send() -> None:
        while not ((folder / "starts0").exists() and (folder / "starts1").exists()):
            time.sleep(0.02)
        time.sleep(0.3)
        os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()
    assert supervise(2, ["train"], print) == code
    assert (starts(folder, 0), starts(folder, 1)) == (1, 1)


def test_a_signal_that_comes_before_the_group_is_there_reaches_it(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    play("exec sleep 100")
    popen = subprocess.Popen

    def starting(*arguments: object, **named: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return popen(*arguments, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", starting)
    begin = time.monotonic()
    assert supervise(2, ["train"], print) == 143
    assert time.monotonic() - begin < 30


def test_a_signal_in_the_pause_ends_it(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = play("kill -9 $$")
    monkeypatch.setattr(supervisor, "_LONGEST_PAUSE", 30.0)
    assert supervise(2, ["train"], lambda _: os.kill(os.getpid(), signal.SIGINT)) == 130
    assert starts(folder) == 1


def test_a_done_run_is_done_although_a_signal_came(play: Play) -> None:
    play('trap "exit 0" TERM; sleep 0.2; kill -TERM "$DISTILLCTL_SUPERVISOR"; while :; do sleep 0.05; done')
    assert supervise(1, ["train"], print) == 0


def test_a_group_whose_supervisor_is_gone_before_it_looks_ends(tmp_path: Path) -> None:
    """The number of the supervisor comes with the environment: the parent is another process by then."""
    text = "import time; from distillctl.distributed import heartbeat; heartbeat.start(); time.sleep(60); print('still there')"
    heartbeat.create(tmp_path / "pulse", 1)
    environment = {**os.environ, heartbeat.VARIABLE: str(tmp_path / "pulse"), heartbeat.PARENT: "1", "RANK": "0"}
    done = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")


def test_one_that_waits_where_no_signal_is_handled_ends_too(tmp_path: Path) -> None:
    text = (
        "import signal, time; from distillctl.distributed import heartbeat; "
        "signal.signal(15, signal.SIG_IGN); heartbeat.start(); time.sleep(60)"
    )
    heartbeat.create(tmp_path / "pulse", 1)
    environment = {**os.environ, heartbeat.VARIABLE: str(tmp_path / "pulse"), heartbeat.PARENT: "1", "RANK": "0"}
    assert subprocess.run([sys.executable, "-c", text], env=environment, timeout=50, check=False).returncode == 143


def test_signs_of_life_name_the_steps_that_are_done(tmp_path: Path) -> None:
    text = (
        "import time; from distillctl.distributed import heartbeat; "
        "heartbeat.start(); heartbeat.step(42); print('x', flush=True); time.sleep(60)"
    )
    heartbeat.create(tmp_path / "pulse", 2)
    before = heartbeat.read(tmp_path / "pulse")
    assert [steps for _, steps in before] == [-1, -1]
    environment = {**os.environ, heartbeat.VARIABLE: str(tmp_path / "pulse"), heartbeat.PARENT: str(os.getpid()), "RANK": "1"}
    with subprocess.Popen([sys.executable, "-c", text], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert [steps for _, steps in heartbeat.read(tmp_path / "pulse")] == [-1, 42]
        time.sleep(2.5)
        after = heartbeat.read(tmp_path / "pulse")
        process.kill()
    assert after[0] == before[0]
    assert after[1][0] > before[1][0] + 1
