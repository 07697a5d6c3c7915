"""Writing files so that a crash at any moment leaves either the old or the new one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary name beside `path`, brings the bytes to the disk and renames."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """A text file in UTF-8."""
    write_atomically(path, lambda temporary: temporary.write_bytes(text.encode()))


def write_json(path: Path, value: object) -> None:
    """A JSON file; keys stay in the order in which they were put. File names that are not UTF-8 are written as escapes, and read back."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_bytes(text.encode(errors="backslashreplace")))


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
