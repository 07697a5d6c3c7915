"""Starts `distillctl` many times at the price of one: forks it from a process that has imported everything.

Reads a line of JSON for each start (`arguments`, `folder`, `log`, `environment`), answers with its pid, and tells of every process that
ended. A launcher that is started here forks its group in the same way. Nothing was computed before, so that no thread is lost in a fork.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

from distillctl.cli import main

LOADED = (
    "distillctl.cli.train",
    "distillctl.cli.display",
    "distillctl.profile.reading",
    "distillctl.commands.train",
    "distillctl_cifar.models",
    "distillctl_digits.data",
    "sklearn.datasets",
    "distillctl.distributed.launcher",
    "torchvision.transforms.v2",
)


def become(arguments: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Is the command, and ends with it."""
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
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(order["folder"])
    become(order["arguments"], {**os.environ, **order["environment"]})


class Child:
    """What torch's agent needs of `subprocess.Popen`."""

    def __init__(self, args: Sequence[str], env: Mapping[str, str], stdout: None, stderr: None, start_new_session: bool) -> None:
        self.returncode: int | None = None
        ready, told = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.setsid()
            os.close(told)
            become(list(args[args.index("distillctl") + 1 :]), env)
        os.close(told)
        os.read(ready, 1)  # it has a session, to which signals can be sent
        os.close(ready)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("distillctl", timeout)
            time.sleep(0.01)
        return code


def tell(**message: int) -> None:
    os.write(1, (json.dumps(message) + "\n").encode())


def serve() -> None:
    for name in LOADED:
        importlib.import_module(name)
    subprocess_handler.Popen = Child  # type: ignore[attr-defined, assignment]
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
