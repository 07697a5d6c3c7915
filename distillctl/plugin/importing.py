"""Imports what a plugin brings, for a limited time, and keeps what it does besides from the rest of the program.

An import can do anything. What is undone here is what would break other plugins or the command that runs: another working directory,
environment, signal handlers or filters of all warnings, threads that the program would wait for. Nothing helps against an import that
ends the process from within (`os._exit`, a crash in C): then `DISTILLCTL_PLUGINS` leaves the plugin out.

An import that is too slow is interrupted, but not in the middle of a compiled package such as torch, which cannot be imported again in
the same process. What cannot be interrupted at all, since it loops in C or switches the clock off, ends the process in the end.
"""

from __future__ import annotations

import faulthandler
import io
import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from importlib.machinery import EXTENSION_SUFFIXES
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from distillctl.errors import PluginError
from distillctl.text import one_line

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

TIMEOUT = "DISTILLCTL_PLUGIN_TIMEOUT"
"""The environment variable for seconds that the import of one plugin may take."""
SECONDS = 10.0

_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGALRM", "SIGHUP", "SIGPIPE", "SIGCHLD", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
]
_MOST_OUTPUT = 1000  # bytes that are kept of what an import prints
_PATIENCE = 6  # times the limit, and some seconds, until an import that cannot be interrupted ends the process

T = TypeVar("T")


class RefusedError(Exception):
    """What a plugin did instead of being imported, in words."""


class _TimeIsUpError(BaseException):
    """Not an `Exception`, so that a plugin that catches all of those does not go on.

    compiled: the package whose import it interrupts for good; empty mostly.
    """

    def __init__(self, compiled: str = "") -> None:
        super().__init__()
        self.compiled = compiled


def seconds_allowed(environment: Mapping[str, str]) -> float:
    """Seconds that the import of one plugin may take.

    Raises:
        PluginError: the environment says something else than a number of seconds.
    """
    text = environment.get(TIMEOUT, "").strip()
    if not text:
        return SECONDS
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 86_400:
        raise PluginError(f"`{TIMEOUT}` must be a number of seconds above 0, not `{one_line(text, 60)}`")
    return value


def attempt(action: Callable[[], T]) -> T:
    """Calls `action`, whose exceptions are a plugin's fault; Ctrl-C and SIGTERM pass.

    Raises:
        RefusedError: it raised, or ended the program; the exception itself is the cause.
    """
    with _users_signals() as from_user:
        try:
            return action()
        except (KeyboardInterrupt, SystemExit) as error:
            if from_user:
                raise
            ends = f"it ends the program while it is imported (exit code {error.code})" if isinstance(error, SystemExit) else ""
            raise RefusedError(ends or "it raises KeyboardInterrupt") from error
        except _TimeIsUpError:
            raise
        except BaseException as error:  # a plugin may raise anything, and must not take the others down
            raise RefusedError(reason(error)) from error


def supervised(name: str, action: Callable[[], T], seconds: float) -> tuple[T, list[str]]:
    """Calls `action` like `attempt`, for a limited time and with its output caught, and undoes what it changes in the process.

    name: of the plugin.
    seconds: that it may take; 0 means as long as it likes.

    Returns:
        What `action` returns, and sentences on what else it did.

    Raises:
        RefusedError: it raised, ended the program, or took too long.
        PluginError: it took too long within a compiled package that is of no use in this process any more.
    """
    notes: list[str] = []
    with ExitStack() as stack:
        for undo in (_printed, _directory, _environment, _filters, _threads, _handlers):
            stack.enter_context(undo(notes))
        try:
            with _time_limit(seconds, notes):
                value = attempt(action)
        except _TimeIsUpError as error:
            hint = f"`{TIMEOUT}` allows more, and `DISTILLCTL_PLUGINS` leaves it out"
            if error.compiled:
                message = f"the plugin `{name}` still imports `{error.compiled}` after {_PATIENCE * seconds:g} s"
                raise PluginError(message, hint=hint) from None
            raise RefusedError(f"its import was stopped after {seconds:g} s; {hint}") from None
    return value, notes


def reason(error: BaseException) -> str:
    """An exception on one line, with its type."""
    try:
        text = str(error).strip().partition("\n")[0]
    except Exception:  # noqa: BLE001 - whatever its author has written
        text = ""
    return one_line(f"{type(error).__name__}: {text}".removesuffix(": "), 300)


@contextmanager
def _users_signals() -> Iterator[list[int]]:
    """Tells whether a signal came in, so that a plugin's own `sys.exit()` is not taken for one, nor the other way round."""
    seen: list[int] = []
    before: dict[int, Any] = {}

    def noting(handler: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], Any]:
        def note(number: int, frame: FrameType | None) -> Any:
            seen.append(number)
            return handler(number, frame)

        return note

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = (handler, noting(handler))
                signal.signal(number, before[number][1])
    try:
        yield seen
    finally:
        for watched, (handler, ours) in before.items():
            if signal.getsignal(watched) is ours:  # otherwise the plugin has set another, which is not ours to hide
                signal.signal(watched, handler)


@contextmanager
def _time_limit(seconds: float, notes: list[str]) -> Iterator[None]:
    """Raises in the main thread when the time is up, and every second from then on; other threads have no limit.

    While a compiled package is half imported it looks on for longer. When that is done, the rest has the whole time again.
    """
    if not seconds or threading.current_thread() is not threading.main_thread():
        yield
        return
    waited: dict[str, float] = {}  # when a compiled package was last seen half imported
    begin = time.monotonic()

    def time_is_up(_number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if compiled := _half_imported():
            waited[compiled] = now
            if now - begin > _PATIENCE * seconds:
                raise _TimeIsUpError(compiled)
        elif now - max(waited.values(), default=begin) >= seconds:
            raise _TimeIsUpError

    before = signal.signal(signal.SIGALRM, time_is_up)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    # Its clock needs no Python to run in this process, so that not even a loop in C holds it up. What hangs stands in the traceback.
    faulthandler.dump_traceback_later(_PATIENCE * seconds + 5, exit=True, file=2)
    try:
        yield
        if waited:
            notes.append(f"its import takes more than {seconds:g} s, in which it imports {', '.join(f'`{one}`' for one in waited)}")
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        if signal.getsignal(signal.SIGALRM) is time_is_up:
            signal.signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)  # None: it was set by C code
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - begin), 0.001), interval)


def _half_imported() -> str:
    """A package with compiled parts whose import has begun and not ended; empty if there is none."""
    for name, module in list(sys.modules.items()):
        if "." not in name and getattr(getattr(module, "__spec__", None), "_initializing", False):
            for folder in getattr(module, "__path__", ()):
                for _, _, files in os.walk(folder):
                    if any(file.endswith(tuple(EXTENSION_SUFFIXES)) for file in files):
                        return name
    return ""


class _FirstWords(io.BufferedIOBase):
    """Stands in for stdout or stderr and keeps the beginning of what is written; once `aside`, hands everything on to the real one.

    An import may keep the stream that it finds, as handlers of `logging` do.
    """

    def __init__(self, stream: str) -> None:
        super().__init__()
        self.name = f"<{stream}>"
        self._stream = stream
        self.kept = b""
        self.aside = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return {"stdout": 1, "stderr": 2}[self._stream]

    def write(self, data: ReadableBuffer) -> int:
        content = bytes(data)
        if self.aside:
            if (real := self._real()) is not None:
                real.write(content.decode(errors="replace"))
        else:
            self.kept += content[: max(0, _MOST_OUTPUT - len(self.kept))]
        return len(content)

    def flush(self) -> None:
        if self.aside and (real := self._real()) is not None:
            real.flush()

    def _real(self) -> Any:
        stream = getattr(sys, self._stream)
        return getattr(sys, f"__{self._stream}__") if getattr(stream, "buffer", None) is self else stream


@contextmanager
def _printed(notes: list[str]) -> Iterator[None]:
    """Output is caught, so that `--json` stays JSON; what programs write that an import starts is lost."""
    words = [_FirstWords("stdout"), _FirstWords("stderr")]
    out, err = (io.TextIOWrapper(w, "utf-8", "backslashreplace", write_through=True) for w in words)
    try:
        with redirect_stdout(out), redirect_stderr(err), _descriptor_silent():
            yield
    finally:
        for one in words:
            one.aside = True
    for one in words:
        if text := one.kept.decode(errors="replace").strip():
            notes.append(f"it prints while it is imported: {text.splitlines()[0][:80]!r}")


@contextmanager
def _descriptor_silent() -> Iterator[None]:
    """Descriptor 1 leads nowhere for a while."""
    _flush_stdout()
    try:
        real = os.dup(1)
    except OSError:  # it is closed
        yield
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        yield
        _flush_stdout()
    finally:
        os.dup2(real, 1)
        os.close(real)


def _flush_stdout() -> None:
    with suppress(OSError, ValueError):
        if sys.__stdout__ is not None:
            sys.__stdout__.flush()


@contextmanager
def _directory(notes: list[str]) -> Iterator[None]:
    before = _here()
    try:
        yield
    finally:
        if before and _here() != before:
            with suppress(OSError):
                os.chdir(before)
            notes.append("it changes the working directory while it is imported")


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return ""


@contextmanager
def _environment(notes: list[str]) -> Iterator[None]:
    """What is added stays: libraries do so for their own parts (OpenMP's settings, folders of compilers)."""
    before = dict(os.environ)
    try:
        yield
    finally:
        if changed := sorted(name for name, value in before.items() if os.environ.get(name) != value):
            os.environ.update({name: before[name] for name in changed})
            names = ", ".join(f"`{one_line(name, 60)}`" for name in changed[:3]) + (", …" if len(changed) > 3 else "")
            notes.append(f"it changes the environment while it is imported: {names}")


@contextmanager
def _filters(notes: list[str]) -> Iterator[None]:
    """Filters of all warnings are taken back; those of a message, a module or a library's own warnings stay."""
    before = list(warnings.filters)
    try:
        yield
    finally:
        new = [f for f in warnings.filters if f not in before]
        kept = [f for f in new if f[1] is not None or f[3] is not None or f[2].__module__ != "builtins"]
        if kept != new or any(f not in warnings.filters for f in before):
            cast("list[Any]", warnings.filters)[:] = kept + before
            notes.append("it changes the filters of all warnings while it is imported")


@contextmanager
def _threads(notes: list[str]) -> Iterator[None]:
    """Threads that an import starts do not keep the program from ending, those of a pool included."""
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def start_daemon(thread: threading.Thread) -> None:
        thread.daemon = True
        started.append(thread)
        start(thread)

    thread_class: Any = threading.Thread
    thread_class.start = start_daemon
    try:
        yield
    finally:
        thread_class.start = start
        # `concurrent.futures` waits for the threads in this table when the program ends, and offers no other way to prevent it.
        table = getattr(sys.modules.get("concurrent.futures.thread"), "_threads_queues", {})
        for thread in started:
            table.pop(thread, None)
        if started:
            notes.append("it starts a thread while it is imported")


@contextmanager
def _handlers(notes: list[str]) -> Iterator[None]:
    """Handlers of signals, and what is called for an exception that nobody catches."""
    handlers, hook, depth = {number: signal.getsignal(number) for number in _SIGNALS}, sys.excepthook, sys.getrecursionlimit()
    try:
        yield
    finally:
        changed = [number for number, handler in handlers.items() if signal.getsignal(number) is not handler]
        for number in changed:
            if handlers[number] is not None:  # otherwise it was set by C code, and Python cannot set it
                signal.signal(number, handlers[number])
        if changed:
            notes.append(f"it sets a handler for {signal.Signals(changed[0]).name} while it is imported")
        if sys.excepthook is not hook:
            sys.excepthook = hook
            notes.append("it sets `sys.excepthook` while it is imported")
        if sys.getrecursionlimit() != depth:
            sys.setrecursionlimit(depth)
            notes.append("it sets the recursion limit while it is imported")
