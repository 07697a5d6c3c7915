"""Torch files, converted once: what the process made of a file is kept in the cache, under the hash of the file.

An entry is `weights/<hash of the file>-<hash of the converting modules>-<hash of the entry>.safetensors`. Its own hash is compared before
it is read, so that a damaged one is made anew; another version of the converting modules makes its own. Since anybody can compute such
a name, the folder and its entries count only if they are this user's and nobody else may write to them. The folder may be deleted at
any time, and only costs time if it cannot be used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from torch import Tensor

from distillctl.errors import DataError, MachineError
from distillctl.files import cache_folder, sha256
from distillctl.weights import contents, process, safetensors_files, torch_files
from distillctl.weights.opening import open_file

KEPT_BYTES = 4 << 30
KEPT_FILES = 64
"""What is kept of converted files, the last used ones; the last alone may be larger."""

_WORK = "converting-"
_FORGOTTEN_SECONDS = 24 * 60 * 60
"""After this, a folder of work belongs to a process that was killed."""


def read(path: Path) -> dict[str, Tensor]:
    """The weights in a torch file by name, from the cache if they lie there.

    Raises:
        DataError: not a file of weights, damaged, changing, or holding objects that are not read.
        MachineError: there is no room for the converted file, or no process can be started.
    """
    with open_file(path) as file:  # its errors are the clear ones
        before = _identity(os.fstat(file.fileno()))
        source = f"{sha256(path)}-{_maker()}"
    folder = _own_folder()
    if folder is not None and (found := _look_up(folder, source)) is not None:
        return found
    with _converted(path, folder, process.Limits.for_size(before[0])) as fresh:
        weights = _parse(fresh)
        if weights is None:
            raise DataError(f"`{path}` could not be converted: what came out is damaged", hint="try again; is the disk sound?")
        if not path.exists() or _identity(path.stat()) != before:
            raise DataError(f"`{path}` changed while it was read", hint="is it still being written?")
        if folder is not None and fresh.parent.parent == folder:
            with suppress(OSError):  # then it is made again the next time
                fresh.chmod(0o600)
                fresh.replace(folder / f"{source}-{sha256(fresh)}.safetensors")
                _tidy(folder)
    return weights


def _identity(state: os.stat_result) -> tuple[int, int, int, int]:
    """Size, times and place of a file: what differs if somebody writes to it. The time of change, unlike the other, cannot be set back."""
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def _own_folder() -> Path | None:
    """The folder of entries, made if needed, for this user alone; None if there can be none."""
    place = cache_folder()
    if place is None:
        return None
    folder = place.absolute() / "weights"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.stat()
        if state.st_uid == os.geteuid() and not _private(state):
            folder.chmod(0o700)  # made by an older version; what others put into it stays theirs
            state = folder.stat()
    except OSError:
        return None
    return folder if _private(state) else None


def _private(state: os.stat_result) -> bool:
    """Whether this user alone decides on the content."""
    return state.st_uid == os.geteuid() and not state.st_mode & 0o022


@cache
def _maker() -> str:
    """Stands for the modules that decide what a converted file holds."""
    sources = b"".join(Path(str(module.__file__)).read_bytes() for module in (torch_files, contents))
    return hashlib.sha256(sources).hexdigest()[:16]


def _look_up(folder: Path, source: str) -> dict[str, Tensor] | None:
    """The weights of an entry that is whole; others are deleted."""
    for entry in folder.glob(f"{source}-*.safetensors"):
        with suppress(OSError):  # another process may have tidied it away
            state = entry.lstat()
            trusted = stat.S_ISREG(state.st_mode) and _private(state)  # reading a pipe would wait for ever
            if trusted and sha256(entry) == entry.stem.rpartition("-")[2] and (weights := _parse(entry)) is not None:
                with suppress(OSError):  # a cache that can only be read serves as well
                    entry.touch()
                return weights
            entry.unlink()
    return None


def _parse(converted: Path) -> dict[str, Tensor] | None:
    """The weights in a converted file under their names; None if it is damaged."""
    try:
        numbered, metadata = safetensors_files.read(converted)
        names = json.loads(metadata[torch_files.NAMES])
        return {name: numbered[str(number)] for number, name in enumerate(names)}
    except (DataError, KeyError, ValueError):
        return None


@contextmanager
def _converted(path: Path, folder: Path | None, limits: process.Limits) -> Iterator[Path]:
    """The converted file, until the end of the block: beside the entries if there is room, else where temporary files lie."""
    reason: object = None
    for place in (folder, None) if folder else (None,):
        try:
            if place is None:
                _clear_up(Path(tempfile.gettempdir()))
            work = Path(tempfile.mkdtemp(prefix=_WORK, dir=place))
        except OSError as error:
            reason = error.strerror or error
            continue
        try:
            target = work / "weights.safetensors"
            process.run_child(path, target, limits)
            yield target
            return
        except torch_files.UnwritableError as error:
            reason = error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    raise MachineError(f"there is no place to convert `{path}`: {reason}", hint="free some space, or name another folder with `TMPDIR`")


def _tidy(folder: Path) -> None:
    """Deletes what was not used for longest, and what killed processes left."""
    entries = sorted(((entry, entry.lstat()) for entry in folder.glob("*.safetensors")), key=lambda pair: -pair[1].st_mtime)
    total = 0
    for number, (entry, state) in enumerate(entries):
        total += state.st_size
        if number and (number >= KEPT_FILES or total > KEPT_BYTES):
            entry.unlink(missing_ok=True)
    _clear_up(folder)


def _clear_up(folder: Path) -> None:
    """Deletes what killed processes of this user left."""
    for work in folder.glob(f"{_WORK}*"):
        with suppress(OSError):  # another process may have deleted it
            state = work.lstat()
            if state.st_uid == os.geteuid() and time.time() - state.st_mtime > _FORGOTTEN_SECONDS:
                shutil.rmtree(work, ignore_errors=True)
