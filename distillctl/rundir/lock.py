"""A lock on a run directory: two trainings never write to one run.

It is a record lock of the operating system on `run.lock`, which ends with the process that holds it, however that ends: there
is no stale lock to clear away. Forked processes do not inherit it, so that a decoder that outlives its killed training for a
moment does not keep the run closed. What the file says is for people. Windows has other locks, which `filelock` takes.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from distillctl.errors import MachineError, Problem, RunError

T = TypeVar("T")
NAME = "run.lock"
LIBRARY = ".lock"
"""The file that `filelock` makes and removes."""
_ATTEMPTS = 100
_held: set[tuple[int, int]] = set()  # record locks do not keep a process from itself


class BusyError(RunError):
    """Another process trains the run; it can be waited for."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, which is made if it is not there, and removed if nothing else came into it.

    Raises:
        MachineError: the folder cannot be made, or its file system has no locks.
        BusyError: another process holds the lock; the message names it. RunError: another part of this one does.
    """
    if not hasattr(os, "lockf"):
        with _locked_by_library(folder):
            yield
        return
    descriptor, key = _open(folder)
    try:
        _held.add(key)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, _holder().encode(), 0)
        yield
    finally:
        with suppress(OSError):  # somebody who waits for it came in between, or removed the folder
            if [entry.name for entry in folder.iterdir()] == [NAME]:
                (folder / NAME).unlink()
                folder.rmdir()
        _held.discard(key)
        os.close(descriptor)


def held(folder: Path) -> bool:
    """Whether somebody trains the run in a folder just now; nothing is taken or made."""
    file = folder / NAME
    try:
        status = file.stat()
        if (status.st_dev, status.st_ino) in _held:
            return True
        if not hasattr(os, "lockf"):
            return (folder / LIBRARY).exists()
        descriptor = os.open(file, os.O_RDWR)
    except OSError:  # no lock, or not ours to write: then nobody can tell
        return False
    try:
        os.lockf(descriptor, os.F_TEST, 0)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def _locked_by_library(folder: Path) -> Iterator[None]:
    """The lock is on a file of its own, which the library removes: Windows lets nobody read a file that is locked."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LIBRARY)

    def take() -> None:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            holder = ""
            with suppress(OSError):
                holder = (folder / NAME).read_text("utf-8").strip()
            raise BusyError(*_refusal(folder, holder)) from None

    _within(folder, take)
    try:
        (folder / NAME).write_text(_holder(), "utf-8")
        yield
    finally:
        with suppress(OSError):
            if {entry.name for entry in folder.iterdir()} <= {NAME, LIBRARY}:
                (folder / NAME).unlink()
        lock.release()
        with suppress(OSError):  # something else is in it
            folder.rmdir()


def _within(folder: Path, take: Callable[[], T]) -> T:
    """Takes something in a folder, which is made; again if whoever held it before us has removed the folder just now."""
    for left in reversed(range(_ATTEMPTS)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return take()
        except OSError as error:
            if not isinstance(error, FileNotFoundError | FileExistsError) or not left:
                raise MachineError(f"the run directory `{folder}` cannot be made: {(error.strerror or str(error)).lower()}") from error
    raise AssertionError("the last attempt returns or raises")


def _holder() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}\n"


def _open(folder: Path) -> tuple[int, tuple[int, int]]:
    """A descriptor of the lock file, on which the lock is held, and the file's identity."""
    while True:
        descriptor = _within(folder, lambda: os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644))
        status = os.fstat(descriptor)
        key = (status.st_dev, status.st_ino)
        if key in _held:  # the descriptor stays open: closing any of a file gives up the lock of the whole process
            raise RunError(*_refusal(folder, _holder().strip()))
        try:
            _lock(descriptor, folder)
        except BaseException:
            os.close(descriptor)
            raise
        with suppress(FileNotFoundError):
            now = os.stat(folder / NAME)
            if (now.st_dev, now.st_ino) == key:
                return descriptor, key
        os.close(descriptor)  # whoever held it before us has removed it


def _lock(descriptor: int, folder: Path) -> None:
    try:
        os.lockf(descriptor, os.F_TLOCK, 0)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise MachineError(
                f"the run directory `{folder}` cannot be locked: {(error.strerror or str(error)).lower()}",
                hint="its file system has no locks, so two trainings would not notice each other: `--out` names another place",
            ) from error
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
        raise BusyError(*_refusal(folder, holder)) from None


def _refusal(folder: Path, holder: str) -> tuple[Problem]:
    hint = "wait for it or end it; `--fresh` starts a run beside this one, `--out` elsewhere"
    return (Problem(f"`{folder}` is being trained by {holder or 'another process'}", hint=hint),)
