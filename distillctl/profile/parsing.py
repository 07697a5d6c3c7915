"""A file becomes data and lines, with one clear error for whatever a file can be that is no profile."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from pathlib import Path

from distillctl.errors import ProfileError
from distillctl.profile.locate import LimitError, key_lines
from distillctl.profile.source import Source, near_files
from distillctl.text import printable

MAX_BYTES = 1 << 18
"""Size of the largest profile that is read."""

_AT_LINE = re.compile(r" \(at line (\d+), column (\d+)\)$")


class SpecialFileError(OSError):
    """A pipe, socket or device, which may have no end or no beginning."""


def read_start(path: Path, most: int) -> bytes:
    """The first bytes of a file.

    Raises:
        SpecialFileError: it is no regular file; it is not waited for.
        OSError: it cannot be read. ValueError: no file can have such a name.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise SpecialFileError
        return file.read(most)


def read_bytes(path: Path) -> bytes:
    """The bytes of a profile.

    Raises:
        ProfileError: there is no such file, it cannot be read, or it is too large to be a profile.
    """
    shown = printable(str(path))
    try:
        if path.is_dir():
            raise ProfileError(f"`{shown}` is a directory, not a profile", hint="name a `.toml` file in it")
        data = read_start(path, MAX_BYTES + 1)
    except SpecialFileError:
        raise ProfileError(f"`{shown}` is a pipe or device, not a profile", hint="write it to a `.toml` file first") from None
    except FileNotFoundError:
        raise ProfileError(f"there is no profile `{shown}`", hint=near_files(path, ".toml")) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ProfileError(f"the profile `{shown}` cannot be read: {reason.lower()}") from None
    if len(data) > MAX_BYTES:
        raise ProfileError(f"`{shown}` is larger than {MAX_BYTES >> 10} KiB and cannot be a profile")
    return data


def parse(data: bytes, path: Path) -> Source:
    """Text, tables and lines of a profile.

    Raises:
        ProfileError: the bytes are not TOML, with the line.
    """
    shown = str(path)
    text = _decode(data, printable(shown))
    try:
        lines = key_lines(text)
        tables = tomllib.loads(text)
    except LimitError as error:
        raise ProfileError(error.message, where=printable(f"{shown}:{error.line}")) from None
    except tomllib.TOMLDecodeError as error:
        raise _not_toml(str(error), printable(shown), text) from None
    return Source(path=path, shown=shown, data=tables, places=dict(lines))


def _decode(data: bytes, shown: str) -> str:
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ProfileError(
            f"`{shown}` starts with a byte order mark", where=f"{shown}:1", hint="save it as plain UTF-8 without a byte order mark"
        )
    if b"\0" in data:
        raise ProfileError(f"`{shown}` is a binary file, not a profile")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ProfileError(f"`{shown}` is not text in UTF-8", where=f"{shown}:{line}") from None
    if not text.strip():
        raise ProfileError(f"the profile `{shown}` is empty", hint="`distillctl init` writes one to start from")
    return text


def _not_toml(message: str, shown: str, text: str) -> ProfileError:
    hint = ""
    if found := _AT_LINE.search(message):
        line, message = int(found[1]), message[: found.start()]
        source = text.splitlines()[line - 1 : line]
        if "Invalid value" in message and source and re.match(r"\s*[\w.\-]+\s*=\s*[A-Za-z./~]", source[0]):
            hint = "strings stand in quotes, and `true` and `false` are written small"
    else:
        line, message = text.count("\n") + 1, message.removesuffix(" (at end of document)")
    message = printable(message[:1].lower() + message[1:].rstrip("."))
    return ProfileError(f"this is not valid TOML: {message}", where=f"{shown}:{line}", hint=hint)
