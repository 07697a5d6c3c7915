"""Runs that are started, hit and compared."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch

HERE = Path(__file__).parent
SLOW = 240  # seconds, of a machine with much else to do
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


class Started(Protocol):
    """A process of the command line."""

    pid: int
    log: Path

    def poll(self) -> int | None:
        """Its exit code; negative for a signal; None while it runs."""

    def wait(self, seconds: float = SLOW) -> int:
        """The same, when it has ended."""

    def lives(self, seconds: float) -> bool:
        """Waits so long; whether it runs still."""

    def send(self, number: int) -> None:
        """Sends a signal."""


class _Waits:
    pid: int
    log: Path

    def poll(self) -> int | None:
        raise NotImplementedError

    def lives(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.poll() is None:
            time.sleep(0.003)
        return self.poll() is None

    def wait(self, seconds: float = SLOW) -> int:
        if not self.lives(seconds):
            code = self.poll()
            assert code is not None
            return code
        self.send(signal.SIGKILL)
        raise AssertionError(f"still there after {seconds} s:\n{self.log.read_text()[-3000:]}")

    def send(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Process(_Waits):
    """Started as a user starts it."""

    def __init__(self, folder: Path, log: Path, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self.log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "distillctl", *arguments],
                cwd=folder,
                env={**ENVIRONMENT, **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.poll()


class Launchpad:
    """See `launchpad.py`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "launchpad.py")], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._started: queue.Queue[int] = queue.Queue()
        self._lock = threading.Lock()
        self.codes: dict[int, int] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if "started" in message:
                self.codes.pop(message["started"], None)  # of an older process with this number
                self._started.put(message["started"])
            else:
                self.codes[message["ended"]] = message["code"]

    def start(self, folder: Path, log: Path, arguments: tuple[str, ...], environment: Mapping[str, str]) -> int:
        order = json.dumps({"arguments": arguments, "folder": str(folder), "log": str(log), "environment": environment}) + "\n"
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(order.encode())
            self._process.stdin.flush()
            return self._started.get(timeout=SLOW)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(SLOW)
        self._reader.join()
        self._process.stdout.close()


class Forked(_Waits):
    """Started in a tenth of a second."""

    def __init__(self, pad: Launchpad, folder: Path, log: Path, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self.log, self._pad = log, pad
        self.pid = pad.start(folder, log, arguments, environment)

    def poll(self) -> int | None:
        return self._pad.codes.get(self.pid)


class Chaos:
    """Starts trainings in folders, side by side if need be, and compares what they leave."""

    def __init__(self) -> None:
        self._pad: Launchpad | None = None
        self._lock = threading.Lock()

    def train(self, folder: Path, out: str, *more: str, forked: bool = True, **environment: str) -> Started:
        """`distillctl train profile.toml --out OUT` in a folder. forked: from the launchpad, instead of a new interpreter."""
        arguments = ("train", "profile.toml", "--out", out, "--device", "cpu", *more)
        log = folder / f"{out.replace('/', '-')}.log"
        if not forked:
            return Process(folder, log, arguments, environment)
        with self._lock:
            self._pad = self._pad or Launchpad()
        return Forked(self._pad, folder, log, arguments, environment)

    def finish(self, folder: Path, out: str, *more: str, forked: bool = True, **environment: str) -> float:
        """The same, to its end; the seconds that it took."""
        begin = time.monotonic()
        process = self.train(folder, out, *more, forked=forked, **environment)
        code = process.wait()
        assert code == 0, process.log.read_text()[-3000:]
        return time.monotonic() - begin

    def close(self) -> None:
        if self._pad is not None:
            self._pad.close()

    @staticmethod
    def outcome(run: Path) -> dict[str, Any]:
        """All that a finished run leaves, but for times and for what the machine is called; tensors as they are."""
        info = json.loads((run / "run.json").read_text())
        assert info["state"] == "finished"
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        result: dict[str, Any] = {
            "student.safetensors": (run / "student.safetensors").read_bytes(),
            "model.json": (run / "model.json").read_bytes(),
            "metrics": [{k: v for k, v in line.items() if not k.endswith(("seconds", "per_second"))} for line in lines],
            "result": info["result"],
            "files": sorted(str(p.relative_to(run)) for p in run.rglob("*") if p.is_file() and p.name != "previous.pt"),
        }
        for name in ("last", "best"):
            state = torch.load(run / "checkpoints" / f"{name}.pt", weights_only=True)
            if "position" in state:
                state["position"] = {k: v for k, v in state["position"].items() if not k.endswith("seconds")}
            result[name] = state
        return result


def differing(a: Any, b: Any, place: str = "") -> list[str]:
    """Where two nests of containers do not hold the same, tensors bit by bit."""
    if isinstance(a, Mapping) and isinstance(b, Mapping) and a.keys() == b.keys():
        return [where for key in a for where in differing(a[key], b[key], f"{place}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [where for n, (x, y) in enumerate(zip(a, b, strict=True)) for where in differing(x, y, f"{place}/{n}")]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes() else [place]
    return [] if a == b else [f"{place}: {str(a)[:300]} and {str(b)[:300]}"]


@pytest.fixture(scope="session")
def equal() -> Callable[[Any, Any], bool]:
    """Whether two outcomes are the same in every bit; if not, fails and says where they differ."""

    def compare(expected: Any, found: Any) -> bool:
        places = differing(expected, found)
        assert not places, "\n".join(places[:20])
        return True

    return compare


@pytest.fixture(scope="module")
def chaos() -> Iterator[Chaos]:
    made = Chaos()
    yield made
    made.close()
