"""Starts `distillctl` many times at the price of one: forks it from a process that has imported everything.

Reads a line of JSON for each start (`arguments`, `folder`, `log`, `environment`), answers with its pid, and tells of every process that
ended. A supervisor that is started here forks its group in the same way. Nothing was computed before, so that no thread is lost in a fork.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, BinaryIO, NoReturn

from distillctl.cli import main
from distillctl.distributed import supervisor

LOADED = (
    "distillctl.cli.train",
    "distillctl.cli.display",
    "distillctl.profile.reading",
    "distillctl.commands.train",
    "distillctl_cifar.models",
    "distillctl_digits.data",
    "sklearn.datasets",
    "torch.distributed",
    "torchvision.transforms.v2",
)


def become(arguments: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Is the command, and ends with it."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = ["distillctl", *arguments]
    code: Any = 1
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    except BaseException:  # noqa: BLE001 - what an interpreter does
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def start(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(order["folder"])
    become(order["arguments"], {**os.environ, **order["environment"]})


class Child:
    """What a supervisor needs of `subprocess.Popen`."""

    def __init__(self, command: list[str], *, env: Mapping[str, str], stderr: BinaryIO | None, start_new_session: bool) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            if stderr is not None:
                os.dup2(stderr.fileno(), 2)
            become(command[command.index("distillctl") + 1 :], env)

    def poll(self, flags: int = os.WNOHANG) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, flags)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int | None:
        return self.poll(0)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def tell(**message: int) -> None:
    os.write(1, (json.dumps(message) + "\n").encode())


def serve() -> None:
    for name in LOADED:
        importlib.import_module(name)
    supervisor.subprocess = SimpleNamespace(Popen=Child)  # type: ignore[assignment, attr-defined]
    left = b""
    while True:
        if select.select([0], [], [], 0.005)[0]:
            read = os.read(0, 65536)
            if not read:
                return
            *lines, left = (left + read).split(b"\n")
            for line in lines:
                tell(started=start(json.loads(line)))
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            tell(ended=pid, code=os.waitstatus_to_exitcode(status))


serve()
