"""Unpacks archives from elsewhere: nothing outside of one new folder is touched, and a small file does not fill the disk.

`tarfile`'s data filter and `zipfile` keep members inside; sizes are counted here, before they are written.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import io
import json
import lzma
import os
import shutil
import tarfile
import tempfile
import time
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
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
_FORGOTTEN_SECONDS = 24 * 60 * 60
"""After this, a folder of work belongs to a process that was killed."""

_NO_FAULT_OF_THE_DISK = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, UnicodeError, OverflowError)


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
    if not (target / containing).is_file():
        size = _state(archive).st_size
        _unpack(archive, target, containing, _Caps(archive, min(max_bytes, max(SMALL, RATIO * size)), max_files))
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
class _Caps:
    """What may still be written."""

    archive: Path
    bytes: int
    files: int

    def take(self, size: int) -> None:
        """Counts a member before it is written."""
        self.files -= 1
        self.bytes -= max(0, size)
        if self.files < 0:
            raise self.refused("it holds too many files")
        if self.bytes < 0:
            raise self.refused("its content is far larger than it may be")

    def refused(self, why: str) -> DataError:
        return DataError(f"`{self.archive}` is not unpacked: {why}", hint="fetch it again from where it is published")


def _unpack(archive: Path, target: Path, containing: str, caps: _Caps) -> None:
    """Unpacks into a temporary folder beside the target and renames: the target is there completely or not at all.

    Two processes may do so at once; the first one's folder stays.
    """
    temporary: Path | None = None
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _clear_up(target)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".unpacking", dir=target.parent))
        state = archive.stat()
        stamp = {"size": state.st_size, "mtime_ns": state.st_mtime_ns, "sha256": sha256(archive)}
        content = temporary / "content"
        content.mkdir()  # with the usual permissions, unlike the folder around it
        _extract(archive, content, caps)
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


def _clear_up(target: Path) -> None:
    """Deletes what killed processes left."""
    for left in target.parent.iterdir():
        if left.name.startswith(f".{target.name}.") and left.name.endswith(".unpacking"):
            with suppress(OSError):  # another process may have deleted it
                if time.time() - left.stat().st_mtime > _FORGOTTEN_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)


def _extract(archive: Path, folder: Path, caps: _Caps) -> None:
    try:
        with archive.open("rb") as file:
            start = file.read(6)
            file.seek(0)
            if start.startswith((b"PK\3\4", b"PK\5\6")):
                _extract_zip(file, folder, caps)
            else:
                _extract_tar(_Bounded(_decompressed(file, start), caps), folder, caps)
    except tarfile.FilterError as error:
        name = one_line(error.tarinfo.name, 200)
        raise caps.refused(f"its member `{name}` would leave the folder, or is neither a file nor a folder") from error
    except _BROKEN as error:
        raise _broken(archive, error) from error
    except OSError as error:
        if error.errno in _NO_FAULT_OF_THE_DISK:
            raise caps.refused(f"a member has no place: {one_line(error.strerror, 200).lower()}") from error
        if error.errno is not None:  # disk full, no permission: not the archive's fault
            raise
        raise _broken(archive, error) from error
    except (RuntimeError, NotImplementedError, MemoryError) as error:  # encrypted, or packed in a way that is not known
        raise caps.refused(one_line(error, 200) or "it asks for too much memory") from error


def _broken(archive: Path, error: Exception) -> DataError:
    return DataError(f"`{archive}` is broken or cut short: {one_line(error, 200)}", hint="download it again")


def _extract_tar(stream: _Bounded, folder: Path, caps: _Caps) -> None:
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        for member in tar:
            caps.take(member.size)
            if member.type == b"V":  # the label of a volume
                continue
            if not (member.isreg() or member.isdir()) or member.issparse():
                raise tarfile.SpecialFileError(member)
            tar.extract(member, folder, filter="data")
            tar.members = []  # type: ignore[attr-defined]  # the list of what has been read would grow with the archive
        end = tar.offset
    stream.seek(end)
    if any(stream.read(tarfile.BLOCKSIZE)):  # `tarfile` takes a damaged header for the end
        raise tarfile.ReadError("a header is damaged")
    while stream.read(_BLOCK):  # checksums of compressed files stand behind the last member
        pass


def _decompressed(file: IO[bytes], start: bytes) -> Any:
    """The tar file inside, by its first bytes."""
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file, mode="rb")
    if start.startswith(b"BZh"):
        return bz2.BZ2File(file)
    return lzma.LZMAFile(file, format=lzma.FORMAT_XZ) if start.startswith(b"\xfd7zXZ\0") else file


class _Bounded(io.RawIOBase):
    """What a tar file is read from. Its headers name sizes that `tarfile` would read at once, and seeks that unpack all between."""

    def __init__(self, inner: Any, caps: _Caps) -> None:
        super().__init__()
        self._inner, self._caps = inner, caps
        # Beside the content there is a block for each header, and the rest of the last block of each file.
        self._end = caps.bytes + 2048 * (caps.files + 1) + _BLOCK

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._inner.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._check(offset)
        return int(self._inner.seek(offset, whence))

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _BLOCK:
            raise self._caps.refused("a header of it is far larger than it may be")
        self._check(self.tell())
        return bytes(self._inner.read(size))

    def readinto(self, buffer: Any) -> int:
        data = self.read(min(len(buffer), _BLOCK))
        buffer[: len(data)] = data
        return len(data)

    def _check(self, position: int) -> None:
        if position > self._end:
            raise self._caps.refused("its content is far larger than it may be")


def _extract_zip(file: IO[bytes], folder: Path, caps: _Caps) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            caps.take(member.file_size)  # no more is written, whatever comes out
        archive.extractall(folder)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
