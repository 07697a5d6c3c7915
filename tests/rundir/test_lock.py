"""Two trainings never write to one run; a lock ends with the process that holds it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from distillctl.errors import MachineError, RunError
from distillctl.rundir.lock import LIBRARY, NAME, locked

# Windows has no record locks; `filelock` then takes what the system has.
BY_LIBRARY = "import os\nif hasattr(os, 'lockf'): del os.lockf\n"
record_locks = pytest.mark.skipif(not hasattr(os, "lockf"), reason="the system has no record locks")

HOLDS = """
import os, sys, time
from pathlib import Path
from distillctl.rundir.lock import locked
with locked(Path(sys.argv[1])):
    {inside}
    print("holds", flush=True)
    time.sleep(600)
"""
TRIES = "from distillctl.rundir.lock import locked; from pathlib import Path; import sys\nwith locked(Path(sys.argv[1])): pass"
RACE = """
import os, sys, time
from pathlib import Path
from distillctl.errors import RunError
from distillctl.rundir.lock import locked
folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
got = 0
while time.time() < float(sys.argv[3]):
    pass
for _ in range(rounds):
    try:
        with locked(folder):
            inside = os.open(folder.with_name("inside"), os.O_CREAT | os.O_EXCL)
            os.close(inside)
            time.sleep(0.0005)
            os.unlink(folder.with_name("inside"))
            got += 1
    except RunError:
        pass
print(got)
"""


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def holder(processes: list[subprocess.Popen[str]], folder: Path, inside: str = "pass", before: str = "") -> subprocess.Popen[str]:
    """A process that holds the lock of a folder."""
    command = [sys.executable, "-c", before + HOLDS.format(inside=inside), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    processes.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    return process


def test_a_second_process_is_refused_and_told_who_trains_where(tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
    other = holder(processes, tmp_path)
    with pytest.raises(RunError) as caught, locked(tmp_path):
        pass
    (problem,) = caught.value.problems
    assert problem.message == f"`{tmp_path}` is being trained by process {other.pid} on {socket.gethostname()}"
    assert "`--fresh`" in problem.hint
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path, processes: list[subprocess.Popen[str]], number: int) -> None:
    other = holder(processes, tmp_path)
    other.send_signal(number)
    other.wait(30)
    assert (tmp_path / NAME).read_text().startswith(f"process {other.pid} ")
    with locked(tmp_path):
        assert (tmp_path / NAME).read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"


def test_a_process_that_stands_still_keeps_its_lock(tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
    holder(processes, tmp_path).send_signal(signal.SIGSTOP)
    with pytest.raises(RunError, match="being trained"), locked(tmp_path):
        pass


def test_a_forked_worker_that_outlives_its_training_does_not_hold_the_lock(tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
    inside = "pid = os.fork()\n    if not pid: time.sleep(600)\n    Path(sys.argv[1], 'worker').write_text(str(pid))"
    other = holder(processes, tmp_path, inside)
    worker = int((tmp_path / "worker").read_text())
    try:
        other.kill()
        other.wait(30)
        os.kill(worker, 0)  # it is there
        with locked(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


def test_one_process_cannot_train_one_run_twice_at_a_time(tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
    """And being refused does not give up the first lock, as closing a descriptor would."""
    with locked(tmp_path):
        with pytest.raises(RunError, match=f"process {os.getpid()} "), locked(tmp_path):
            pass
        done = subprocess.run([sys.executable, "-c", TRIES, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False)
        assert "is being trained by process" in done.stderr
    with locked(tmp_path):
        pass


@record_locks
def test_the_lock_is_on_the_file_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever held it before may remove it just when it is opened, and a third make it anew."""
    lockf, renewed = os.lockf, []

    def late(descriptor: int, how: int, length: int) -> None:
        if not renewed:
            (tmp_path / NAME).unlink()
            renewed.append((tmp_path / NAME).write_text(""))
        lockf(descriptor, how, length)

    monkeypatch.setattr(os, "lockf", late)
    with locked(tmp_path):
        command = [sys.executable, "-c", TRIES, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert f"is being trained by process {os.getpid()} " in done.stderr
    assert renewed


def test_a_folder_to_which_nothing_came_is_removed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="untrained teacher"), locked(tmp_path / "runs" / "new"):
        raise ValueError("untrained teacher")
    assert not (tmp_path / "runs" / "new").exists()
    with locked(tmp_path / "kept"):
        (tmp_path / "kept" / "file").touch()
    assert (tmp_path / "kept" / NAME).is_file()


def test_a_run_that_is_removed_while_it_is_trained_does_not_hide_the_error(tmp_path: Path) -> None:
    def train() -> None:
        with locked(tmp_path / "run"):
            shutil.rmtree(tmp_path / "run")
            raise ValueError("the reason")

    with pytest.raises(ValueError, match="the reason"):
        train()


@pytest.mark.parametrize("before", ["", pytest.param(BY_LIBRARY, id="by_library")])
def test_starts_at_the_same_instant_never_train_together(tmp_path: Path, processes: list[subprocess.Popen[str]], before: str) -> None:
    """Each takes and leaves the lock again and again; the folder comes and goes with it."""
    begin = str(time.time() + 1.5)
    for _ in range(5):
        command = [sys.executable, "-c", before + RACE, str(tmp_path / "run"), "150", begin]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=60) for process in processes]
    assert [errors for _, errors in said] == [""] * 5
    assert sum(int(out) for out, _ in said) > 0
    assert before or not (tmp_path / "run").exists()  # on Linux the library's file stays


@record_locks
def test_a_file_system_without_locks_is_an_error_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(os, "lockf", without)
    with pytest.raises(MachineError, match="cannot be locked: no locks available") as caught, locked(tmp_path / "run"):
        pass
    assert "`--out`" in caught.value.problems[0].hint
    assert caught.value.exit_code == 3


def test_a_place_where_no_folder_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot be made: not a directory"), locked(tmp_path / "file" / "run"):
        pass


def test_without_record_locks_a_second_training_is_refused_as_well(tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
    other = holder(processes, tmp_path / "run", before=BY_LIBRARY)
    command = [sys.executable, "-c", BY_LIBRARY + TRIES, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert f"`{tmp_path / 'run'}` is being trained by process {other.pid} on " in done.stderr
    other.kill()
    other.wait(30)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_record_locks_a_run_keeps_what_came_into_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "lockf", raising=False)
    for name in ("first", "second"):
        with locked(tmp_path / "run"):
            (tmp_path / "run" / name).touch()
    assert {path.name for path in (tmp_path / "run").iterdir()} - {LIBRARY} == {"first", "second", NAME}
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot be made"), locked(tmp_path / "file" / "run"):
        pass
