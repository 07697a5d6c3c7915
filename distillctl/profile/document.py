"""A profile as it is stated, by its file and by the command line: what stands in it, and where. Whether it is right is not asked here.

A document does not change. `--set`, `--method`, `--teacher` and `--seed` each make a new one.
"""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distillctl.errors import ProfileError
from distillctl.profile.problems import bounded
from distillctl.profile.schema import WAYS
from distillctl.profile.toml_file import Key, LimitError, key_lines, parse, read_bytes

_PART = re.compile(r"""\s*(?:([A-Za-z0-9_-]+)|"([^"\\]*)"|'([^']*)')\s*(\.|$)""")


COMMAND_LINE = "command line"
"""Where a value comes from that an override states."""


def dotted(key: Key) -> str:
    """The key as a user writes it behind `--set`."""
    return ".".join(str(part) for part in key)


@dataclass(frozen=True)
class Document:
    """One profile.

    text: the bytes of the file.
    data: its tables, with what the command line states.
    places: for each key the line of the file, or the part of the command line, that states it.
    """

    path: Path
    text: bytes
    data: Mapping[str, Any]
    places: Mapping[Key, int | str]

    @classmethod
    def read(cls, path: Path) -> Document:
        """The document of a file.

        Raises:
            ProfileError: it cannot be read, or is not TOML.
        """
        text = read_bytes(path)
        return cls(path, text, *parse(text, path))

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

    def place(self, key: Key) -> int | str | None:
        """The line or the part of the command line that states a key, or else the table around it."""
        return next((self.places[key[:n]] for n in range(len(key), 0, -1) if key[:n] in self.places), None)

    def where(self, key: Key) -> str:
        """`file:line, [table]`, or the part of the command line."""
        place = self.place(key)
        if isinstance(place, str):
            return place
        if place is None:
            return str(self.path)
        table = self._header(key)
        return f"{self.path}:{place}, {table}" if table else f"{self.path}:{place}"

    def origin(self, key: Key) -> str:
        """Where a stated value comes from: `profile:12` or `command line`."""
        place = self.place(key)
        return COMMAND_LINE if isinstance(place, str) else f"profile:{place}" if place is not None else "profile"

    def from_command_line(self, key: Key) -> bool:
        """Whether the command line states this key."""
        return isinstance(self.place(key), str)

    def first_from_command_line(self, table: str) -> Key | None:
        """The first key of a table, or the table itself, that the command line states."""
        return next((key for key, place in self.places.items() if key[0] == table and isinstance(place, str)), None)

    def stating(self, key: Key, value: Any, place: str) -> Document:
        """The document with a value from the command line; tables on the way are made where they are missing."""
        made = [key[:n] for n in range(1, len(key)) if self.get(key[:n]) is None]
        places = {**self._places_without(key), **dict.fromkeys([*made, key], place)}
        return replace(self, data=_with(self.data, key, value), places=places)

    def without(self, key: Key) -> Document:
        """The document without a table, or without a key of a table that is there."""
        rest = {name: value for name, value in self.get(key[:-1]).items() if name != key[-1]}
        return replace(self, data=_with(self.data, key[:-1], rest), places=self._places_without(key))

    def _places_without(self, key: Key) -> dict[Key, int | str]:
        return {k: place for k, place in self.places.items() if k[: len(key)] != key}

    def _header(self, key: Key) -> str:
        """The innermost table around a key, as its header would be written."""
        length = next((n for n in range(len(key), 0, -1) if isinstance(self.get(key[:n]), dict)), 0)
        if not length and isinstance(self.get(key[:1]), list):
            length = 1
        names = ".".join(str(part) for part in key[:length] if isinstance(part, str))
        return "" if not names else f"[[{names}]]" if isinstance(key[length - 1], int) else f"[{names}]"


def _with(value: Any, key: Key, new: Any) -> Any:
    """A copy of nested tables and arrays in which one place is new."""
    if not key:
        return new
    part: Any = key[0]
    if isinstance(value, list):
        return [_with(v, key[1:], new) if i == part else v for i, v in enumerate(value)]
    return {**value, part: _with(value.get(part) or {}, key[1:], new)}


@dataclass(frozen=True)
class Edit:
    """One key to set: parts of the dotted key, the value, and how messages call it."""

    parts: tuple[str, ...]
    value: Any
    place: str


def parse_edit(text: str) -> Edit:
    """`KEY=VALUE` as an edit.

    Raises:
        ProfileError: it has another form.
    """
    place = f"--set {text if len(text) <= 200 else text[:197] + '...'}"
    key, equals, value = text.partition("=")
    if '"' in key or "'" in key:  # the sign may stand inside the quotes of a key
        found = re.match(r"""((?:[^"'=]|"[^"]*"|'[^']*')*)=(.*)""", text, re.DOTALL)
        key, equals, value = (found[1], "=", found[2]) if found else (text, "", "")
    parts = split_key(key)
    if not equals or parts is None:
        message = "an override has the form `KEY=VALUE` with a dotted key"
        raise ProfileError(bounded(message, place, "for example `--set train.epochs=2`"))
    return Edit(parts, parse_value(value.strip()), place)


def split_key(text: str) -> tuple[str, ...] | None:
    """The parts of a dotted key; None if it is none."""
    parts: list[str] = []
    position = 0
    while len(parts) < 8:
        found = _PART.match(text, position)
        if found is None:
            return None
        parts.append(next(g for g in found.groups()[:3] if g is not None))
        position = found.end()
        if not found[4]:
            return tuple(parts)
    return None


def parse_value(text: str) -> Any:
    """The text as a TOML value, or as a plain string where it is none (`bf16`, a path, a date)."""
    try:
        key_lines(f"v = {text}")
        data = tomllib.loads(f"v = {text}")
    except (LimitError, ValueError):
        return text
    value = data["v"]
    return text if len(data) > 1 or isinstance(value, datetime.date | datetime.time) else value


def flat_overrides(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`teacher.overrides` as dotted keys: `{train = {epochs = 2}}` means the same as `{"train.epochs" = 2}`.

    A table with a `name` takes the place of the whole table: the options of another data set or model would not fit it.
    """
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and "name" not in value:
            result |= flat_overrides(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = value
    return result


def edited(document: Document, edit: Edit) -> Document:
    """The document with one key set.

    Raises:
        ProfileError: the key leads through something that is not a table, or it does not say which [[method]] it means.
    """
    key = _meant(document, edit)
    for length in range(1, len(key)):
        on_the_way = document.get(key[:length])
        if not (on_the_way is None or isinstance(on_the_way, list if isinstance(key[length], int) else dict)):
            raise ProfileError(bounded(f"`{dotted(key[:length])}` is not a table", edit.place))
    return document.stating(key, edit.value, edit.place)


def _meant(document: Document, edit: Edit) -> Key:
    """The key that an edit means: `method.kd.weight` is the table of that name, what stands behind `teacher.overrides` is one key."""
    key = _in_table(document, edit)
    at = 3 if len(key) > 1 and isinstance(key[1], int) else 2
    return (*key[:at], dotted(key[at:])) if key[0] == "teacher" and key[at - 1 : at] == ("overrides",) and len(key) > at else key


def _in_table(document: Document, edit: Edit) -> Key:
    """The key with the number of the table, where there are several."""
    parts, (name, *_) = edit.parts, edit.parts
    tables = document.data.get(name)
    if name not in _SEVERAL or (name == "teacher" and not isinstance(tables, list)):
        return parts
    if len(parts) == 2 and _names_a_table(tables, parts[1]):
        message = f"`{dotted(parts)}` is a whole table, and `--set` sets a key of it"
        hint = f"write `{dotted(parts)}.KEY=VALUE`, such as `{dotted(parts)}.{_SEVERAL[name]}; {_REPLACES[name]}"
        raise ProfileError(bounded(message, edit.place, hint))
    if len(parts) == 1 or not (isinstance(tables, dict) or (isinstance(tables, list) and any(isinstance(one, dict) for one in tables))):
        return parts
    if isinstance(tables, dict):
        named = len(parts) > 2 and parts[1] in ("0", tables.get("name")) and parts[1] not in tables
        return (name, *parts[2:]) if named else parts
    positions = [i for i, table in enumerate(tables) if isinstance(table, dict) and parts[1] in (str(i), *_names_of_table(table))]
    if len(positions) == 1 and len(parts) > 2:
        return (name, positions[0], *parts[2:])
    if len(tables) == 1 and isinstance(tables[0], dict) and not positions:
        return (name, 0, *parts[1:])
    if len(positions) > 1:
        message = f"several [[{name}]] tables are called `{parts[1]}`"
    elif parts[1].isdigit():
        message = f"there is no [[{name}]] table number {parts[1]}, only 0 to {len(tables) - 1}"
    else:
        message = f"there are several [[{name}]] tables, and the key does not say which it means"
    raise ProfileError(bounded(message, edit.place, f"write `{name}.0.KEY=VALUE` or `{name}.NAME.KEY=VALUE`"))


_SEVERAL = {"method": "weight=1`", "teacher": "image_size=64`", "tracker": "project=birds`"}
"""Tables of which there may be several, each with an example of a key."""
_REPLACES = {
    "method": "`--method NAME` replaces all methods",
    "teacher": "`--teacher WEIGHTS` replaces all teachers",
    "tracker": "`--track NAME` adds a tracker",
}


def _names_a_table(tables: Any, name: str) -> bool:
    """Whether a part of a key is the number or the name of a table, and no key of the one that there is."""
    tables = tables if isinstance(tables, list) else [tables]
    known = [(str(number), *_names_of_table(table)) for number, table in enumerate(tables) if isinstance(table, dict)]
    return any(name in names for names in known) and not (len(known) == 1 and name in tables[0])


def _names_of_table(table: Mapping[str, Any]) -> tuple[str, ...]:
    """By which `--set` finds a table: its name, or for a teacher that has none the file or folder of its weights, without the ending."""
    name = table.get("name") or next((Path(way).stem for key in WAYS if isinstance(way := table.get(key), str) and way), "")
    return (name,) if isinstance(name, str) and name else ()


def with_one_teacher(document: Document) -> Document:
    """A single [[teacher]] is the same as [teacher]."""
    tables = document.data.get("teacher")
    if not isinstance(tables, list) or len(tables) != 1 or not isinstance(tables[0], dict):
        return document
    places = {("teacher", *key[2:]) if key[:2] == ("teacher", 0) else key: place for key, place in document.places.items()}
    return replace(document, data={**document.data, "teacher": tables[0]}, places=places)


def with_method(document: Document, name: str) -> Document:
    """All method tables give way to one method with its own defaults."""
    return document.stating(("method",), {"name": name}, f"--method {name}")


def with_trackers(document: Document, names: Sequence[str]) -> Document:
    """A [[tracker]] more for each name that has none; what is wrong with those that are there is told when they are read."""
    for name in names:
        stated = document.data.get("tracker", [])
        tables = [stated] if isinstance(stated, dict) else stated
        if not isinstance(tables, list) or any(isinstance(table, dict) and table.get("name") == name for table in tables):
            continue
        places = dict(document.places)
        if isinstance(stated, dict):
            places = {("tracker", 0, *key[1:]) if key[0] == "tracker" else key: place for key, place in places.items()}
        key: Key = ("tracker", len(tables))
        places |= dict.fromkeys((key, (*key, "name")), f"--track {name}")
        document = replace(document, data={**document.data, "tracker": [*tables, {"name": name}]}, places=places)
    return document


def with_teacher(document: Document, target: str) -> Document:
    """The teacher's weights come from elsewhere; what the table says besides stays where it still has an effect.

    Several teachers give way to this one.
    """
    document = with_one_teacher(document)
    try:
        path = Path(target).expanduser()
        path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        if isinstance(error, RuntimeError):
            reason = "it begins with the home folder of a user who has none"
        raise ProfileError(bounded(f"`{target[:80]}` is not a path: {reason}", "--teacher")) from None
    way = "run" if path.is_dir() else "profile" if path.suffix == ".toml" else "checkpoint" if path.suffix or path.is_file() else "run"
    old = document.data.get("teacher", {})
    if not isinstance(old, dict):
        document, old = document.without(("teacher",)), {}
    stays = {
        "checkpoint": old.keys() - {*WAYS, "overrides", "key"},
        "profile": {"allow_untrained", "overrides"},
        "run": {"allow_untrained"},
    }[way]
    place = f"--teacher {target}"
    for name in [name for name in old if name not in stays]:
        document = document.without(("teacher", name))
    if way == "checkpoint" and "name" not in old and isinstance(old.get("profile"), str):  # the model is that profile's student
        for name, value in _student_in(document.path.parent / old["profile"]).items():
            document = document.stating(("teacher", name), value, place)
    return document.stating(("teacher", way), str(path.absolute()), place)


def _student_in(path: Path) -> dict[str, Any]:
    """Name and options of the student of another profile; empty where it cannot be read."""
    try:
        student = Document.read(path).data.get("student")
    except ProfileError:
        return {}
    return {name: value for name, value in student.items() if name not in (*WAYS, "key")} if isinstance(student, dict) else {}
