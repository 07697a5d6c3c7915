"""A profile on its way to being checked: its data, where each key stands, and what was found to be wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distillctl.errors import Problem, ProfileError
from distillctl.profile.locate import Key
from distillctl.text import printable

MAX_PROBLEMS = 100
"""So many problems are told; a file with more is no profile, and finding all of them would take long."""
MAX_MESSAGE = 4000
"""Characters of a message or hint."""


def dotted(key: Key) -> str:
    """The key as a user writes it behind `--set`."""
    return ".".join(str(part) for part in key)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 3] + "..."


def nearest(name: str, names: Iterable[str]) -> str:
    """`did you mean …?`, or nothing if no name is near."""
    names = list(names)
    lowered = {n.lower(): n for n in names}
    found = [lowered[n] for n in difflib.get_close_matches(name.lower(), list(lowered), 1, 0.6)]
    return f"did you mean `{found[0]}`?" if found else ""


def near_files(path: Path, suffix: str = "") -> str:
    """A hint with the files whose names are nearest to that of a missing one, or the first part of the path that is missing."""
    folder = path.parent
    try:
        names = [e.name for _, e in zip(range(2000), folder.iterdir(), strict=False) if e.name.endswith(suffix)]
    except OSError:
        missing = next((p for p in reversed(folder.parents) if not p.exists()), folder)
        return printable(f"the folder `{missing}` does not exist")
    found = difflib.get_close_matches(path.name, names, 3, 0.5)
    return printable("did you mean " + " or ".join(f"`{folder / n}`" for n in found) + "?") if found else ""


@dataclass
class Source:
    """One profile while it is read.

    shown: how messages call the file.
    data: its tables, with overrides applied.
    places: for each key the line of the file, or the part of the command line, that states it.
    trusted: the profile was checked before (a run's `resolved.toml`): files that it names need not be there any more.
    """

    path: Path
    shown: str
    data: dict[str, Any]
    places: dict[Key, int | str]
    trusted: bool = False
    problems: list[Problem] = field(default_factory=list)

    def complain(self, message: str, key: Key = (), hint: str = "") -> None:
        """Notes a problem at a key, or at the file as a whole.

        Raises:
            ProfileError: there are so many problems already that the rest is not looked for.
        """
        problem = Problem(printable(_cut(message)), printable(self.where(key)), printable(_cut(hint)))
        if problem in self.problems:
            return
        if len(self.problems) >= MAX_PROBLEMS:
            raise ProfileError([*self.problems, Problem(f"there are more than {MAX_PROBLEMS} problems, and the rest was not looked for")])
        self.problems.append(problem)

    def place(self, key: Key) -> int | str | None:
        """The line or the part of the command line that states a key, or else the table around it."""
        for length in range(len(key), 0, -1):
            if (place := self.places.get(key[:length])) is not None:
                return place
        return None

    def where(self, key: Key) -> str:
        """`file:line, [table]`, or the part of the command line."""
        place = self.place(key)
        if isinstance(place, str):
            return place
        text = self.shown if place is None else f"{self.shown}:{place}"
        table = self._table(key) if place is not None else ""
        return f"{text}, {table}" if table else text

    def origin(self, key: Key) -> str:
        """Where a stated value comes from: `profile:12` or `command line`."""
        place = self.place(key)
        return "command line" if isinstance(place, str) else f"profile:{place}" if place is not None else "profile"

    def from_command_line(self, key: Key) -> bool:
        """Whether an override states this key."""
        return isinstance(self.place(key), str)

    def get(self, key: Key) -> Any:
        """The value at a key; None if there is none."""
        value: Any = self.data
        part: Any
        for part in key:
            if (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
                value = value[part]
            else:
                return None
        return value

    def table(self, name: str) -> dict[str, Any]:
        """A top-level table; an empty one if it is missing or, with a problem noted, no table at all."""
        value = self.data.get(name, {})
        if isinstance(value, dict):
            return value
        self.complain(f"`{name}` must be a table, [{name}]", (name,))
        return {}

    def state(self, key: Key, value: Any, place: str) -> None:
        """Sets a value from the command line; tables on the way must exist already or are made."""
        self.forget(key)
        for length in range(1, len(key)):
            if self.get(key[:length]) is None:
                self.places[key[:length]] = place
        target: Any = self.data
        for part in key[:-1]:
            target = target[part] if isinstance(part, int) else target.setdefault(part, {})
        target[key[-1]] = value
        self.places[key] = place

    def forget(self, key: Key) -> None:
        """Forgets where a key and all below it stand."""
        for known in [k for k in self.places if k[: len(key)] == key]:
            del self.places[known]

    def _table(self, key: Key) -> str:
        """The innermost table around a key, as its header would be written."""
        length = next((n for n in range(len(key), 0, -1) if isinstance(self.get(key[:n]), dict)), 0)
        if not length and isinstance(self.get(key[:1]), list):
            length = 1
        names = ".".join(str(part) for part in key[:length] if isinstance(part, str))
        return "" if not names else f"[[{names}]]" if isinstance(key[length - 1], int) else f"[{names}]"
