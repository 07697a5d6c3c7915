"""Starts the process that opens a torch file, waits for it, and puts what became of it into words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from distillctl.errors import DataError, MachineError
from distillctl.weights.torch_files import UnwritableError

_MODULE = "distillctl.weights.child"

# Isolated, Python knows neither `PYTHONPATH` nor the folder of the user; what this process imports, that one does.
_START = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {_MODULE} import main; main(sys.argv[2])"

_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL")
"""Variables of the environment that the process gets: what importing may need, and no secrets."""

_ANSWER_BYTES = 1 << 16
"""A pipe holds as much; a process that writes more waits until its time is over."""


@dataclass(frozen=True)
class Limits:
    """What opening one file may cost.

    memory: bytes of address space beyond what importing torch takes.
    written: bytes of the converted file.
    seconds: of the processor, from when the file is opened.
    patience: seconds of the clock altogether; much more, for slow disks and busy machines.
    """

    memory: int
    written: int
    seconds: int
    patience: float

    @classmethod
    def for_size(cls, size: int) -> Limits:
        """For a file of `size` bytes: reading takes its size, making weights dense as much again, packed archives some more."""
        seconds = 60 + size // 20_000_000
        return cls(memory=(1 << 30) + 4 * size, written=(64 << 20) + 3 * size, seconds=seconds, patience=5.0 * seconds)


def run_child(source: Path, target: Path, limits: Limits) -> None:
    """Converts `source` to `target` in a process of its own, whose folder is that of `target`.

    Raises:
        DataError: the file is refused, or the process did not outlive it.
        MachineError: no process can be started.
        UnwritableError: `target` cannot be written.
        RuntimeError: the process failed before it came to the file.
    """
    job = {
        "source": str(source.absolute()),
        "target": str(target.absolute()),
        "shown_as": str(source),
        "memory": limits.memory,
        "written": limits.written,
        "seconds": limits.seconds,
        "parent": os.getpid(),
    }
    search = [os.path.abspath(folder) for folder in sys.path]
    command = [sys.executable, "-I", "-c", _START, json.dumps(search), json.dumps(job)]
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=target.parent,
        )
    except OSError as error:
        raise MachineError(f"no process can be started to open `{source}`: {error.strerror}") from error
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        try:
            status = process.wait(limits.patience)
        except subprocess.TimeoutExpired:
            raise _too_slow(source) from None
        finally:
            process.kill()
            process.wait()
        answer, complaint = (_what_is_there(pipe.fileno()) for pipe in (process.stdout, process.stderr))
    _judge(source, status, answer, complaint)


def _what_is_there(pipe: int) -> bytes:
    """What a pipe holds, without waiting for more."""
    os.set_blocking(pipe, False)
    try:
        return os.read(pipe, _ANSWER_BYTES)
    except BlockingIOError:
        return b""


def _judge(source: Path, status: int, answer: bytes, complaint: bytes) -> None:
    """Returns if the file is converted."""
    if status == -signal.SIGXCPU:
        raise _too_slow(source)
    if status == -signal.SIGKILL:
        raise DataError(f"the process that opened `{source}` was killed", hint="has the machine run out of memory?")
    if status < 0:
        raise DataError(
            f"the process that opened `{source}` crashed ({signal.Signals(-status).name})",
            hint="it is damaged or was made to do harm: get it anew from where it came from",
        )
    if status or not answer:
        raise RuntimeError(f"the process that opens `{source}` failed:\n{complaint.decode(errors='replace')}")
    told = json.loads(answer)
    if "unwritable" in told:
        raise UnwritableError(told["unwritable"])
    if told:
        raise DataError(told["message"], hint=told["hint"])


def _too_slow(source: Path) -> DataError:
    return DataError(
        f"`{source}` takes far longer to open than a file of its size needs",
        hint="it is damaged or was made to do harm, or it lies on a disk that does not answer",
    )
