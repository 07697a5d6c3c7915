"""Unpacks archives from elsewhere: nothing outside of one new folder is touched, and a small file does not fill the disk.

Every member is written by us, by its own name, as a new file: no links, devices, owners, modes or times are taken over. Sizes are counted
as they are written, since what an archive says of itself may be wrong.
"""

from __future__ import annotations

import bz2
import fcntl
import gzip
import hashlib
import io
import json
import lzma
import os
import shutil
import stat
import sys
import tarfile
import tempfile
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from distillctl.errors import DataError, MachineError
from distillctl.files import cache_folder, json_bytes, sha256
from distillctl.text import one_line

ENDINGS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar", ".zip")
"""Ends of the names of archives that are known."""
MAX_BYTES = 64 << 30
"""Bytes that an archive may hold where nothing else is said."""
MAX_FILES = 1 << 20
"""Files and folders that it may hold."""
RATIO = 100
"""So many times larger than the archive may its content be; text reaches 20, photographs 1."""
SMALL = 64 << 20
"""Bytes that an archive may hold whatever its own size."""
STAMP = ".unpacked-from.json"
"""In a folder that was unpacked here: size, time of change and sha256 of the archive."""
_BLOCK = 1 << 20
_WAIT, _SILENT = 600.0, 5.0  # seconds for another process to unpack the same archive, and before that is said
_VOLUME = b"V"  # the label of a GNU archive, which is no member
_MAX_DEPTH = 32
_MAX_NAME, _MAX_PATH = 255, 1024  # bytes; all common file systems take them

_BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError)


def unpacked(archive: Path, *, containing: str, name: str = "", max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES) -> Path:
    """The folder that an archive was unpacked into, or is now: beside it, or in the cache folder where its own cannot be written.

    A folder of that name without a stamp of ours was unpacked by somebody who knows what he does, and is taken as it is.

    Args:
        archive: a tar file, plain or compressed by gzip, bzip2 or xz, or a zip file; see `ENDINGS`.
        containing: a file of the data, `images.txt` for example. What is kept is the folder in the archive that holds it: the top one or
            one right below.
        name: of the new folder; empty for the archive's name without its ending.
        max_bytes: that the archive may hold.
        max_files: files and folders that it may hold.

    Raises:
        DataError: the archive is broken, holds something else, or is not to be trusted; or the folder beside it was unpacked from another.
        MachineError: there is no place for it.
    """
    stem = next((archive.name[: -len(e)] for e in ENDINGS if archive.name.lower().endswith(e)), None)
    if stem is None:
        raise DataError(f"`{archive}` is neither a folder nor an archive", hint="known endings: " + ", ".join(f"`{e}`" for e in ENDINGS))
    beside = archive.parent / (name or stem)
    writable = _writable(archive.parent)
    if (beside / containing).is_file():
        if _made_of(archive, beside):
            return beside
        if writable:
            raise DataError(
                f"`{beside}` was unpacked from another archive than `{archive}`, or that one was replaced since",
                hint="move the folder away, or name the folder if its content is what you mean",
            )
    target = beside if writable else _in_cache(archive, beside.name)
    with _alone(archive) as alone:
        # Another process may have been unpacking it while this one waited.
        if not (target / containing).is_file():
            _unpack(archive, target, containing, _Limits.of(archive, max_bytes, max_files), alone)
    return target


def _state(archive: Path) -> os.stat_result:
    try:
        return archive.stat()
    except OSError as error:
        raise _unreadable(archive, error) from error


def _unreadable(archive: Path, error: OSError) -> DataError:
    return DataError(f"`{archive}` cannot be read: {(error.strerror or str(error)).lower()}")


def _made_of(archive: Path, folder: Path) -> bool:
    """Whether a folder may be what is in the archive: it was unpacked from the same bytes, or has no stamp."""
    try:
        stamp = json.loads((folder / STAMP).read_bytes())
        size, time_ns, digest = stamp["size"], stamp["mtime_ns"], stamp["sha256"]
    except FileNotFoundError:
        return True
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    state = _state(archive)
    # A copy has another time, and the same bytes.
    return bool(size == state.st_size and (time_ns == state.st_mtime_ns or digest == sha256(archive)))


def _in_cache(archive: Path, name: str) -> Path:
    """The place of this archive in the cache; one of another path, size or time has another.

    Raises:
        MachineError: there is no cache that can be written to.
    """
    cache = cache_folder()
    if cache is None or not _writable(cache):
        listed = ", ".join(f"`{place}`" for place in (archive.parent, cache) if place is not None)
        raise MachineError(f"`{archive}` cannot be unpacked: none of {listed} can be written")
    state = _state(archive)
    known_by = json_bytes([str(archive.resolve()), state.st_size, state.st_mtime_ns])
    return cache / "unpacked" / hashlib.sha256(known_by).hexdigest()[:16] / name


@dataclass
class _Limits:
    """What may still be written."""

    archive: Path
    bytes: int
    files: int

    @classmethod
    def of(cls, archive: Path, max_bytes: int, max_files: int) -> _Limits:
        return cls(archive, min(max_bytes, max(SMALL, RATIO * archive.stat().st_size)), max_files)

    def one_more(self) -> None:
        self.files -= 1
        if self.files < 0:
            raise self.refused("it holds too many files")

    def take(self, count: int) -> None:
        self.bytes -= count
        if self.bytes < 0:
            raise self.refused("its content is far larger than it may be")

    def refused(self, why: str) -> DataError:
        return DataError(f"`{self.archive}` is not unpacked: {why}", hint="fetch it again from where it is published")

    def member(self, name: str, why: str) -> DataError:
        return self.refused(f"its member `{one_line(name, 200)}` {why}")


def _unpack(archive: Path, target: Path, containing: str, limits: _Limits, alone: bool) -> Path:
    """Unpacks into a temporary folder beside the target and renames: the target is there completely or not at all."""
    prefix = f".{target.name}.{archive.stat().st_ino:x}."
    if alone:  # nobody else unpacks this archive: what has such a name was left by a process that was killed
        for left in target.parent.glob(f"{_literal(prefix)}*"):
            shutil.rmtree(left, ignore_errors=True)
    temporary: Path | None = None
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
        state = archive.stat()
        stamp = {"size": state.st_size, "mtime_ns": state.st_mtime_ns, "sha256": sha256(archive)}
        content = temporary / "content"
        content.mkdir()  # with the usual permissions, unlike the folder around it
        _extract(archive, content, limits)
        found = next((p for p in (content, *sorted(content.iterdir())) if (p / containing).is_file()), None)
        if found is None:
            raise DataError(f"`{archive}` holds no `{containing}`: it is an archive of something else")
        (found / STAMP).write_bytes(json_bytes(stamp))
        try:
            found.rename(target)
        except OSError:
            if not (target / containing).is_file():  # otherwise another process was faster
                raise DataError(f"`{target}` is in the way of unpacking `{archive}`", hint="move it away") from None
    except OSError as error:
        raise MachineError(f"`{archive}` cannot be unpacked into `{target.parent}`: {(error.strerror or str(error)).lower()}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def _extract(archive: Path, folder: Path, limits: _Limits) -> None:
    try:
        with archive.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            (_extract_zip if start in (b"PK\3\4", b"PK\5\6") else _extract_tar)(file, folder, limits)
    except (*_BROKEN, UnicodeError, OverflowError) as error:
        raise _broken(archive, error) from error
    except OSError as error:
        if error.errno is not None:  # disk full, no permission: not the archive's fault
            raise
        raise _broken(archive, error) from error
    except (RuntimeError, NotImplementedError, MemoryError) as error:  # encrypted, or packed in a way that is not known
        raise limits.refused(str(error) or "it asks for too much memory") from error


def _broken(archive: Path, error: Exception) -> DataError:
    return DataError(f"`{archive}` is broken or cut short: {one_line(error, 200)}", hint="download it again")


def _extract_tar(file: IO[bytes], folder: Path, limits: _Limits) -> None:
    bounded = _Bounded(_decompressed(file), limits)
    with tarfile.open(fileobj=bounded, mode="r:") as tar:
        for member in tar:
            limits.one_more()
            if member.type == _VOLUME:
                continue
            if not (member.isreg() or member.isdir()) or member.issparse():
                raise limits.member(member.name, "is neither a file nor a folder")
            if member.isdir():
                _folder(folder, _path(member.name, limits), limits, member.name)
                continue
            if member.size > limits.bytes:
                raise limits.refused("its content is far larger than it may be")
            source = tar.extractfile(member)
            assert source is not None
            with source:
                _write(source, folder, _path(member.name, limits), limits, member.name)
            tar.members = []  # type: ignore[attr-defined]  # the list of what has been read would grow with the archive
        end = tar.offset
    bounded.seek(end)
    if any(bounded.read(tarfile.BLOCKSIZE)):  # `tarfile` takes a damaged header for the end
        raise tarfile.ReadError("a header is damaged")
    while bounded.read(_BLOCK):  # checksums of compressed files stand behind the last member
        pass


def _decompressed(file: IO[bytes]) -> Any:
    """The tar file inside, by its first bytes."""
    start = file.read(6)
    file.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file, mode="rb")
    if start.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if start.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(file, format=lzma.FORMAT_XZ)
    return file


class _Bounded(io.RawIOBase):
    """What a tar file is read from. Its headers name sizes that `tarfile` would read at once, and seeks that unpack all between."""

    def __init__(self, inner: Any, limits: _Limits) -> None:
        super().__init__()
        self._inner = inner
        self._limits = limits
        # Beside the content there is a block for each header, and the rest of the last block of each file.
        self._end = limits.bytes + 2048 * (limits.files + 1) + (1 << 20)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._inner.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if offset > self._end:
            raise self._limits.refused("its content is far larger than it may be")
        return int(self._inner.seek(offset, whence))

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _BLOCK:
            raise self._limits.refused("a header of it is far larger than it may be")
        if self.tell() > self._end:
            raise self._limits.refused("its content is far larger than it may be")
        return bytes(self._inner.read(size))

    def readinto(self, buffer: Any) -> int:
        data = self.read(min(len(buffer), _BLOCK))
        buffer[: len(data)] = data
        return len(data)


def _extract_zip(file: IO[bytes], folder: Path, limits: _Limits) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            limits.one_more()
            name, kind = member.orig_filename, stat.S_IFMT(member.external_attr >> 16)
            if kind and not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                raise limits.member(name, "is neither a file nor a folder")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise limits.member(name, "is packed in a way that is not known")
            path = _path(name, limits)
            if member.is_dir():
                _folder(folder, path, limits, name)
                continue
            with archive.open(member) as source:
                _write(source, folder, path, limits, name)


def _path(name: str, limits: _Limits) -> PurePosixPath:
    """A member's name as a path below the target.

    Raises:
        DataError: it leads out, or no file system we know takes it.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:  # here `\` and `:` are letters of a name
        raise limits.member(name, "would leave the folder")
    if any(unicodedata.category(c) == "Cc" for c in name):
        raise limits.member(name, "has control characters in its name")
    if len(path.parts) > _MAX_DEPTH or len(os.fsencode(name)) > _MAX_PATH or any(len(os.fsencode(part)) > _MAX_NAME for part in path.parts):
        raise limits.member(name, "has a name that is too long")
    return path


def _folder(top: Path, path: PurePosixPath, limits: _Limits, name: str) -> None:
    """Makes a folder and those around it. There are no links below `top`, since we make none."""
    try:
        (top / path).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise limits.member(name, "stands where another member is a file") from None


def _write(source: IO[bytes], top: Path, path: PurePosixPath, limits: _Limits, name: str) -> None:
    _folder(top, path.parent, limits, name)
    try:
        target = (top / path).open("xb")
    except (FileExistsError, IsADirectoryError):
        raise limits.member(name, "is there twice") from None
    with target:
        while block := source.read(_BLOCK):
            limits.take(len(block))
            target.write(block)


@contextmanager
def _alone(archive: Path) -> Iterator[bool]:
    """Waits until no other process of ours unpacks the same archive.

    False where the file system knows no locks, and after a long wait: whoever can read the archive can hold its lock for ever. Without
    the lock two may unpack at once, and the first one's folder stays.

    Raises:
        DataError: it cannot be read.
    """
    try:
        file = archive.open("rb")
    except OSError as error:
        raise _unreadable(archive, error) from error
    with file:
        yield _locked(file, archive)


def _locked(file: IO[bytes], archive: Path) -> bool:
    begin, said = time.monotonic(), False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            waited = time.monotonic() - begin
        except OSError:
            return False
        if waited > _WAIT:
            return False
        if waited > _SILENT and not said:
            said = True
            sys.stderr.write(f"waiting for another process that unpacks `{one_line(archive)}`\n")
            sys.stderr.flush()
        time.sleep(0.05)


def _literal(text: str) -> str:
    """The text as a pattern that means itself."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
