"""The sha256 of a file beside it, as `last.pt.sha256`, checked before each use: of every checkpoint and of the deployed student.

A file and its hash cannot be replaced in one instant. So the hash is written first, with a second line that says what was there before;
that line goes when the new file is in its place. Whenever the process dies, the file is one of the two. `sha256sum -c` reads the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distillctl.errors import DataError
from distillctl.files import sha256, write_text

SUFFIX = ".sha256"
_NONE = "none"  # there was no file before
_FORM = re.compile(rf"([0-9a-f]{{64}})  [^\n]*\n(?:# before: ([0-9a-f]{{64}}|{_NONE})\n)?")
_LONGEST = 4096  # bytes that are read of such a file


def beside(path: Path) -> Path:
    """Where the hash of a file is."""
    return path.with_name(path.name + SUFFIX)


@contextmanager
def replacing(path: Path, digest: str) -> Iterator[None]:
    """Around the instant in which a new file of this hash, whose bytes are on the disk, takes its place."""
    _note(path, digest, current(path))
    yield
    _note(path, digest)


def current(path: Path) -> str:
    """The hash of the file that is there; computed only if it is not noted, the note is damaged, or a crash left two."""
    if not path.is_file():
        return _NONE
    try:
        noted = _noted(path)
    except DataError:
        noted = []
    return noted[0] if len(noted) == 1 else sha256(path)


def problem(path: Path) -> str:
    """Why a file must not be used, in words that follow its name; empty if it may be, if it never came, or if there is no hash.

    Raises:
        DataError: the hash itself is damaged.
    """
    noted = _noted(path)
    if not noted:
        return ""
    if not path.is_file():
        return "" if _NONE in noted else "is gone"
    return "" if sha256(path) in noted else "is not the file that this run wrote: it is damaged, or it comes from elsewhere"


def check(path: Path) -> Path:
    """Returns the path of a file that is what was written.

    Raises:
        DataError: it is damaged, foreign or gone.
    """
    if found := problem(path):
        raise DataError(f"`{path}` {found}")
    return path


def _noted(path: Path) -> list[str]:
    """The hash of the file and, around its coming, of the one before; empty if there is none, as in runs of older versions."""
    try:
        with beside(path).open("rb") as file:
            content = file.read(_LONGEST).decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"`{beside(path)}` cannot be read: {(error.strerror or str(error)).lower()}") from error
    if not (found := _FORM.fullmatch(content)):
        raise DataError(f"`{beside(path)}` is damaged, so that `{path.name}` cannot be checked", hint="without it, the file is not checked")
    return [digest for digest in found.groups() if digest is not None]


def _note(path: Path, digest: str, before: str | None = None) -> None:
    write_text(beside(path), f"{digest}  {path.name}\n" + (f"# before: {before}\n" if before is not None else ""))
