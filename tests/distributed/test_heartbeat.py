"""A process and the launcher that has started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distillctl.distributed import heartbeat
from distillctl.errors import MachineError

START = "import os, signal, time; from distillctl.distributed import heartbeat; "


def environment(folder: Path, launcher: int, rank: int = 0) -> dict[str, str]:
    return {**os.environ, heartbeat.GROUP: str(folder), heartbeat.LAUNCHER: str(launcher), "LOCAL_RANK": str(rank)}


def test_a_process_whose_launcher_is_gone_before_it_looks_ends(tmp_path: Path) -> None:
    """The number of the launcher comes with the environment: the parent is another process by then."""
    text = START + "heartbeat.start(); time.sleep(60); print('still there')"
    done = subprocess.run(
        [sys.executable, "-c", text], env=environment(tmp_path, 1), capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")


@pytest.mark.posix
def test_a_run_whose_sweep_is_killed_stops_and_one_that_others_started_does_not(tmp_path: Path) -> None:
    said = tmp_path / "said"
    run = START + (
        f"os.chdir({str(tmp_path)!r}); signal.signal(15, lambda *_: (open('said', 'a').write('stopped'), os._exit(0)))\n"
        "heartbeat.start(); print(flush=True); time.sleep(30)"
    )
    for starter, ends in (("str(os.getpid())", True), ("'1'", False)):
        text = (
            "import os, subprocess, sys, time\n"
            f"run = subprocess.Popen([sys.executable, '-c', {run!r}], env=os.environ | {{{heartbeat.STARTER!r}: {starter}}}, stdout=-1)\n"
            "run.stdout.readline(); print(run.pid, flush=True); time.sleep(30)"
        )
        with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE) as sweep:
            assert sweep.stdout is not None
            pid = int(sweep.stdout.readline())
            sweep.kill()
        deadline = time.monotonic() + (30 if ends else 1)
        while not said.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert said.exists() == ends
        if ends:
            said.unlink()
        else:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize(("met", "code"), [("", 143), ("heartbeat.met.set(); ", 0)])
def test_one_that_waits_where_no_signal_is_handled_ends_too(tmp_path: Path, met: str, code: int) -> None:
    """But for one that has met the others: it may be saving."""
    text = START + f"heartbeat.GRACE = 1; signal.signal(15, signal.SIG_IGN); {met}heartbeat.start(); time.sleep(4)"
    assert subprocess.run([sys.executable, "-c", text], env=environment(tmp_path, 1), timeout=50, check=False).returncode == code


@pytest.mark.slow
def test_a_process_gives_signs_and_survives_the_warning_for_its_job(tmp_path: Path) -> None:
    file = heartbeat.sign(tmp_path, 1)
    file.touch()
    os.utime(file, (1, 1))
    text = START + "heartbeat.start(); os.kill(os.getpid(), signal.SIGUSR2); print('x', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", text], env=environment(tmp_path, os.getpid(), 1), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"x\n"
        seen = set()
        deadline = time.monotonic() + 30
        while len(seen) < 3 and time.monotonic() < deadline:
            seen.add(file.stat().st_mtime)
            time.sleep(0.1)
        process.kill()
    assert len(seen - {1}) >= 2


def test_the_others_wait_until_the_first_has_spoken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = heartbeat.sign(tmp_path, 0)
    first.touch()
    monkeypatch.setenv(heartbeat.GROUP, str(tmp_path))
    heartbeat.let_the_first_speak()
    assert first.exists(), "another command that a process of the group starts is none of the group"
    monkeypatch.setattr(heartbeat, "_group", (str(tmp_path), "1"))
    monkeypatch.setattr(heartbeat, "GRACE", 0.3)
    begin = time.monotonic()
    heartbeat.let_the_first_speak()
    assert time.monotonic() - begin >= 0.3
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(heartbeat, "_group", (str(tmp_path), "0"))
    heartbeat.let_the_first_speak()
    assert signal.signal(signal.SIGTERM, before) == signal.SIG_IGN
    assert not first.exists()
    monkeypatch.setattr(heartbeat, "GRACE", 60)
    monkeypatch.setattr(heartbeat, "_group", (str(tmp_path), "1"))
    begin = time.monotonic()
    heartbeat.let_the_first_speak()
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize("text", ["x", "0", "-1", "inf"])
def test_patience_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    assert heartbeat.patience() == heartbeat.PATIENCE
    monkeypatch.setenv("DISTILLCTL_PATIENCE", text)
    with pytest.raises(MachineError, match=f"`DISTILLCTL_PATIENCE={text}`"):
        heartbeat.patience()
