"""Writing files so that a crash at any moment leaves either the old or the new one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

FULL_OR_CLOSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
"""What the machine refuses, whatever the profile says: no space, quota, a read-only or lost file system, no permission."""


MAX_JSON = 16 << 20
"""Bytes of a JSON file that is read: the names of 20,000 classes take a few MiB."""


def write_atomically(path: Path, write: Callable[[Path], object], ready: Callable[[], object] | None = None) -> None:
    """Calls `write` with a temporary name beside `path`, brings the bytes to the disk and renames.

    ready: called between the two, when the bytes are on the disk and `path` is still the old file.
    """
    temporary = temporary_beside(path)
    try:
        write(temporary)
        with temporary.open("r+b") as file:  # Windows brings only what may be written to the disk
            os.fsync(file.fileno())
        if ready is not None:
            ready()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def temporary_beside(path: Path) -> Path:
    """The name under which this process makes what will take the place of `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def sync_folder(path: Path) -> None:
    """Brings the names in a folder to the disk, where the file system can."""
    try:
        folder = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(folder)


class _Hashing:
    """A file that is only written to; hashes what is written, and remembers what the system refused."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


@contextmanager
def hashed(path: Path) -> Iterator[tuple[BinaryIO, Callable[[], str]]]:
    """A new file to write to from the start to the end, and the sha256 of what was written so far, in hex.

    Raises:
        OSError: the system refused a write, whatever the writer made of that.
    """
    with path.open("wb") as file:
        target = _Hashing(file)
        try:
            yield cast(BinaryIO, target), lambda: target.digest.hexdigest()
            file.flush()
        except Exception:
            if target.error is not None:
                raise target.error from None
            raise


def write_text(path: Path, text: str) -> None:
    """A text file in UTF-8."""
    write_atomically(path, lambda temporary: temporary.write_bytes(text.encode()))


def write_json(path: Path, value: object) -> None:
    """A JSON file; keys stay in the order in which they were put. File names that are not UTF-8 are written as escapes, and read back."""
    write_atomically(path, lambda temporary: temporary.write_bytes(json_bytes(value)))


def json_bytes(value: object) -> bytes:
    """The content of a JSON file."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON in UTF-8, longer than `MAX_JSON`, or nested too deeply.
    """
    with path.open("rb") as file:
        content = file.read(MAX_JSON + 1)
    if len(content) > MAX_JSON:
        raise ValueError(f"it is longer than {MAX_JSON >> 20} MiB")
    try:
        return json.loads(content.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def cache_folder() -> Path | None:
    """Where files lie that can be made again: `$DISTILLCTL_CACHE`, or `distillctl` in `$XDG_CACHE_HOME` or in `~/.cache`.

    None if this user has no home. The folder may be missing and may be deleted at any time.
    """
    if own := os.environ.get("DISTILLCTL_CACHE"):
        return Path(own).expanduser()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if shared.is_absolute():  # the specification says to ignore others
        return shared / "distillctl"
    try:
        return Path.home() / ".cache" / "distillctl"
    except RuntimeError:
        return None


def sha256(path: Path) -> str:
    """The hash of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
