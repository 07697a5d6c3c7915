"""What the command line changes in a profile: `--set`, `--method`, `--teacher`, `--seed`."""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillctl.profile.locate import Key, LimitError, key_lines
from distillctl.profile.source import Source, dotted

_PART = re.compile(r"""\s*(?:([A-Za-z0-9_-]+)|"([^"\\]*)"|'([^']*)')\s*(\.|$)""")
WAYS = ("run", "checkpoint", "weights", "profile")
"""How a teacher's weights can be named."""


@dataclass(frozen=True)
class Edit:
    """One key to set: parts of the dotted key, the value, and how messages call it."""

    parts: tuple[str, ...]
    value: Any
    place: str


def parse_edit(text: str, source: Source) -> Edit | None:
    """`KEY=VALUE` as an edit; None, with a problem noted, if it has another form."""
    place = f"--set {text if len(text) <= 200 else text[:197] + '...'}"
    key, equals, value = text.partition("=")
    if '"' in key or "'" in key:  # the sign may stand inside the quotes of a key
        found = re.match(r"""((?:[^"'=]|"[^"]*"|'[^']*')*)=(.*)""", text, re.DOTALL)
        key, equals, value = (found[1], "=", found[2]) if found else (text, "", "")
    parts = split_key(key)
    if not equals or parts is None:
        source.places[("--set", text)] = place
        source.complain("an override has the form `KEY=VALUE` with a dotted key", ("--set", text), "for example `--set train.epochs=2`")
        return None
    return Edit(parts, _value(value.strip()), place)


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


def _value(text: str) -> Any:
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


def apply(source: Source, edit: Edit) -> None:
    """Sets one key; notes a problem where the key leads through something that is no table."""
    key = _resolve(source, edit)
    if key is None:
        return
    for length in range(1, len(key)):
        on_the_way = source.get(key[:length])
        if on_the_way is not None and not isinstance(on_the_way, dict | list):
            source.places[("--set", edit.place)] = edit.place
            source.complain(f"`{dotted(key[:length])}` is not a table", ("--set", edit.place))
            return
    source.state(key, edit.value, edit.place)


def _resolve(source: Source, edit: Edit) -> Key | None:
    """The key that an edit means: `method.kd.weight` is the table of that name, what stands behind `teacher.overrides` is one key."""
    parts = edit.parts
    if parts[:2] == ("teacher", "overrides") and len(parts) > 2:
        return ("teacher", "overrides", ".".join(parts[2:]))
    methods = source.data.get("method")
    if parts[0] != "method" or len(parts) == 1 or not isinstance(methods, dict | list):
        return parts
    if isinstance(methods, dict):
        named = len(parts) > 2 and parts[1] in ("0", methods.get("name")) and parts[1] not in methods
        return ("method", *parts[2:]) if named else parts
    positions = [i for i, table in enumerate(methods) if isinstance(table, dict) and parts[1] in (str(i), table.get("name"))]
    if len(positions) == 1 and len(parts) > 2:
        return ("method", positions[0], *parts[2:])
    if len(methods) == 1 and isinstance(methods[0], dict) and not positions:
        return ("method", 0, *parts[1:])
    source.places[("--set", edit.place)] = edit.place
    if len(positions) > 1:
        message = f"several [[method]] tables are called `{parts[1]}`"
    elif parts[1].isdigit():
        message = f"there is no [[method]] table number {parts[1]}, only 0 to {len(methods) - 1}"
    else:
        message = "there are several [[method]] tables, and the key does not say which it means"
    source.complain(message, ("--set", edit.place), "write `method.0.KEY=VALUE` or `method.NAME.KEY=VALUE`")
    return None


def replace_method(source: Source, name: str) -> None:
    """All method tables give way to one method with its own defaults."""
    source.state(("method",), {"name": name}, f"--method {name}")


def replace_teacher(source: Source, target: str) -> None:
    """The teacher's weights come from elsewhere; what the table says besides stays where it still has an effect."""
    path = Path(target).expanduser()
    way = "run" if path.is_dir() else "profile" if path.suffix == ".toml" else "checkpoint" if path.suffix or path.is_file() else "run"
    old = source.data.get("teacher")
    old = old if isinstance(old, dict) else {}
    stays = {"checkpoint": old.keys() - {*WAYS, "overrides"}, "profile": {"allow_untrained", "overrides"}, "run": {"allow_untrained"}}[way]
    for key in [k for k in old if k not in stays]:
        source.forget(("teacher", key))
    source.data["teacher"] = {k: v for k, v in old.items() if k in stays}
    source.places.setdefault(("teacher",), f"--teacher {target}")
    source.state(("teacher", way), str(path.absolute()), f"--teacher {target}")
