"""Imports what a plugin brings, so that one that fails is named with its reason and everything else works.

An import runs within the caller's process and can do there whatever it likes: nothing is timed, watched or undone. `DISTILLCTL_PLUGINS`
leaves a plugin out.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from distillctl.text import one_line

T = TypeVar("T")


class RefusedError(Exception):
    """What a plugin did instead of being imported, in words. The exception that it raised is the cause."""


def attempt(action: Callable[[], T]) -> T:
    """Calls `action`, whose exceptions are a plugin's fault, `SystemExit` included.

    Ctrl-C passes, and so does everything that a signal handler raises, such as the end of the program on SIGTERM.

    Raises:
        RefusedError: it raised.
    """
    try:
        return action()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may raise anything, and must not take the others down
        if _from_a_signal(error):
            raise
        ends = f"it ends the program while it is imported (exit code {error.code})" if isinstance(error, SystemExit) else ""
        raise RefusedError(ends or reason(error)) from error


def reason(error: BaseException) -> str:
    """An exception on one line, with its type."""
    try:
        text = str(error).strip().partition("\n")[0]
    except Exception:  # noqa: BLE001 - whatever its author has written
        text = ""
    return one_line(f"{type(error).__name__}: {text}".removesuffix(": "), 300)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """What imports and the programs that they start write to stdout goes to stderr, so that `--json` stays JSON.

    The descriptor is the whole process's, so nothing happens where other threads may be writing to it. `sys.stdout` stays as it is.
    """
    real = None
    if threading.active_count() == 1:
        with suppress(OSError):  # one of the two is closed
            _flush()
            real = os.dup(1)
            os.dup2(2, 1)
    try:
        yield
    finally:
        if real is not None:
            _flush()
            os.dup2(real, 1)
            os.close(real)


def _flush() -> None:
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()


def _from_a_signal(error: BaseException) -> bool:
    """Whether a signal handler that is set raised it: then the handler is among the calls that the exception came through."""
    handlers = {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()}
    return any(frame.f_code in handlers for frame, _ in traceback.walk_tb(error.__traceback__))
