"""Collects the checked tables of a profile: what each value is and where it comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from distillctl.api.options import Options
from distillctl.api.specs import Spec
from distillctl.errors import PluginError
from distillctl.plugin.catalog import Catalog, known_package
from distillctl.plugin.registry import Registry, load
from distillctl.profile.checking import check_table
from distillctl.profile.locate import Key
from distillctl.profile.source import Source, dotted

S = TypeVar("S", bound=Spec)


def plain(value: Any) -> Any:
    """A value of an options model as TOML data; what is not set is left out."""
    if isinstance(value, BaseModel):
        return {name: plain(item) for name in type(value).model_fields if (item := getattr(value, name)) is not None}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


_NO_PART = {("train", "workers"), ("train", "save_every"), ("tracker",)}
"""Keys that change nothing of the result: a run goes on with other values as the same run."""


def identity(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is: every value that its result depends on, by dotted key.

    Paths below the current directory count from there, so that a moved checkout with its data and runs is the same.
    """
    flat: dict[str, Any] = {}
    _flatten(resolved, (), flat)
    return flat


def _flatten(value: Any, key: Key, flat: dict[str, Any]) -> None:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None or (not value and key):
        below = str(Path.cwd()) + "/"
        flat[dotted(key)] = value.removeprefix(below) if isinstance(value, str) else value
        return
    for part, item in items:
        if (*key, part) not in _NO_PART:
            _flatten(item, (*key, part), flat)


def digest_of(resolved: Mapping[str, Any]) -> str:
    """sha256 of a run's identity in one canonical form, in hexadecimal."""
    text = json.dumps(identity(resolved), sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class Builder:
    """What all tables share: finding specs, checking options, recording values with their origins."""

    def __init__(self, source: Source, registry: Registry) -> None:
        self.source = source
        self.registry = registry
        self.origins: dict[str, str] = {}

    def find(self, catalog: Catalog[S], key: Key, name: Any) -> S | None:
        """The spec of a name; None, with a problem noted, if there is none. A name that is no string is noted elsewhere."""
        if not isinstance(name, str):
            return None
        try:
            return catalog.get(name)
        except PluginError as error:
            problem = error.problems[0]
            package = known_package(catalog.kind, name)
            broken = next((p for p in self.registry.plugins if p.package == package and p.problem), None)
            hint = f"`{broken.package}` is installed but broken: {broken.problem}" if broken else problem.hint
            self.source.complain(problem.message, key, hint)
            return None

    def options(self, spec: Spec, kind: str, values: Mapping[str, Any], key: Key, core: type[BaseModel]) -> Options | None:
        """A plugin's own keys, checked against its options; None, with problems noted, if they do not fit."""
        try:
            model: type[Options] = load(spec.options, spec.name) if spec.options else Options
        except PluginError as error:
            self.source.complain(error.problems[0].message, (*key, "name"), error.problems[0].hint)
            return None
        return check_table(
            self.source,
            model,
            values,
            key,
            subject=f"{kind} `{spec.name}`",
            command=f"`distillctl show {spec.qualified}`",
            also=[name for name in core.model_fields if name not in model.model_fields],
        )

    def record(
        self, key: Key, parts: list[BaseModel | None], stated: Mapping[str, Any], presets: Mapping[str, tuple[Any, str]] | None = None
    ) -> dict[str, Any]:
        """All values of a table as TOML data; notes for each where it comes from."""
        data: dict[str, Any] = {}
        for part in parts:
            if part is not None:
                data.update(plain(part))
        if key[0] in ("student", "teacher"):
            data = {k: v for k, v in data.items() if v or k not in ("name", "weights", "overrides")}  # empty means not set
        for name in data:
            preset = presets[name][1] if presets and name in presets else "default"
            self.origins[dotted((*key, name))] = self.source.origin((*key, name)) if name in stated else preset
        return data

    def no_effect(self, key: Key, why: str, because: Key = (), hint: str = "") -> None:
        """Notes that a stated key does nothing; not if the command line made it so and the file alone states the key."""
        if because and self.source.from_command_line(because) and not self.source.from_command_line(key):
            return
        self.source.complain(f"`{dotted(key)}` has no effect {why}", key, hint)


def split(values: Mapping[str, Any], core: type[BaseModel]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The core's keys of a table, and the plugin's."""
    own = {k: v for k, v in values.items() if k not in core.model_fields}
    return {k: v for k, v in values.items() if k in core.model_fields}, own
