"""`manifest.json` of a run directory: the sha256 of every checkpoint and of the deployed student, to be checked before use.

A file and its hash cannot be replaced in one instant. So the hash of a new file enters the manifest first, beside that of the
file which it will replace; a crash between the two leaves a manifest that knows both. A file that comes for the first time
replaces none (`_NONE`), so that a crash before it came is told from its being deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from distillctl.errors import DataError
from distillctl.files import read_json, sha256, write_json

NAME = "manifest.json"
_NONE = ""
_KEPT = 2  # the file that comes, and the one that is there


class Manifest:
    """Hashes of files by their path within a folder. Runs of older versions have none, and nothing of theirs is checked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / NAME

    def expect(self, digests: Mapping[str, str]) -> None:
        """Notes what files will be: called when the new bytes are on the disk, before they take the place of the old ones."""
        known = self._read()
        for name, digest in digests.items():
            before = known.get(name) or [self._found(name)]
            known[name] = [digest, *(old for old in before if old != digest)][:_KEPT]
        self._write(known)

    def arrived(self, name: str) -> None:
        """Notes that a file which was expected is there: from now on it must not be missing."""
        known = self._read()
        if _NONE in known.get(name, ()):
            known[name].remove(_NONE)
            self._write(known)

    def forget(self, name: str) -> None:
        """A file is not there any more."""
        known = self._read()
        if known.pop(name, None) is not None:
            self._write(known)

    def settle(self) -> None:
        """Forgets hashes of files that never came, or are gone. Called when a run begins or goes on."""
        before = self._read()
        known = {}
        for name, digests in before.items():
            found = self._found(name)
            if found in digests and found != _NONE:
                known[name] = [found]
            elif found not in digests:
                known[name] = [digest for digest in digests if digest != _NONE]
        if known != before:
            self._write(known)

    def newest(self, name: str) -> str:
        """The hash of the file that was written last under this name; of the file itself if nothing is noted."""
        return (self._read().get(name) or [sha256(self._folder / name)])[0]

    def problem(self, name: str) -> str:
        """Why a file must not be used, in words that follow its name; empty if it may be, or if the manifest does not know it.

        Raises:
            DataError: the manifest itself is damaged.
        """
        known = self._read().get(name)
        path = self._folder / name
        if known is None:
            return ""
        if not path.is_file():
            return "is gone"
        return "" if sha256(path) in known else "is not the file that this run wrote: it is damaged, or it comes from elsewhere"

    def check(self, name: str) -> Path:
        """The path of a file that may be used.

        Raises:
            DataError: it may not.
        """
        if problem := self.problem(name):
            raise DataError(f"`{self._folder / name}` {problem}")
        return self._folder / name

    def _found(self, name: str) -> str:
        path = self._folder / name
        return sha256(path) if path.is_file() else _NONE

    def _read(self) -> dict[str, list[str]]:
        try:
            known = read_json(self._path)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError) as error:
            raise self._damaged() from error
        if not isinstance(known, dict) or not all(isinstance(d, list) and all(isinstance(h, str) for h in d) for d in known.values()):
            raise self._damaged()
        return known

    def _write(self, known: Mapping[str, list[str]]) -> None:
        write_json(self._path, known)

    def _damaged(self) -> DataError:
        return DataError(f"`{self._path}` is damaged, so that no file of the run can be checked", hint="without it, files are not checked")
