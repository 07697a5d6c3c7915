"""The objects of one kind, by their names."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from distillctl.api.specs import Spec
from distillctl.errors import PluginError

if TYPE_CHECKING:
    from distillctl.plugin.family import Family
    from distillctl.plugin.own_files import OwnFiles

S = TypeVar("S", bound=Spec)

PREFIX = "file:"
"""Begins the name of what lies in a file of one's own."""


@dataclass
class Plugin:
    """One entry point: what it provides, or why it does not.

    problem: empty if all is well. `loaded` tells whether the rest of it works all the same.
    """

    name: str
    package: str
    version: str
    provides: list[Spec] = field(default_factory=list)
    problem: str = ""
    loaded: bool = False


class Catalog(Generic[S]):
    """The objects of one kind, by name, qualified name and alias.

    kind: the word for one of them.
    listing: the command that lists all.
    left_out: packages that are installed but not wanted.
    families: models that are declared when they are asked for, by what stands before the slash; iterating leaves them out.
    files: what lies in files of one's own; None where no code may be run.
    plugins: all that were looked for, among them broken ones, which are named where a name may be one of theirs.
    """

    def __init__(self, kind: str, listing: str = "plugins", left_out: Collection[str] = (), plugins: Sequence[Plugin] = ()) -> None:
        self.kind = kind
        self._listing = listing
        self._left_out = left_out
        self._plugins = plugins
        self._entries: dict[str, tuple[S, Plugin]] = {}
        self._own: dict[str, S] = {}  # by qualified name and alias, which nobody else can have
        self._short: dict[str, list[S]] = {}  # by name without namespace, which several may have
        self._reserved: dict[str, str] = {}  # name → package
        self.families: dict[str, Family] = {}
        self.files: OwnFiles | None = None

    def add(self, spec: S, plugin: Plugin) -> None:
        """Takes a spec in.

        Raises:
            PluginError: the name is taken; the message names the package that has it.
        """
        if spec.namespace in self.families:
            package = self.families[spec.namespace].plugin.package
            raise PluginError(f"the {self.kind}s `{spec.namespace}/…` are already provided by {package}")
        names = {spec.qualified, *spec.aliases}
        for name in sorted(names):
            package = self._reserved.get(name) or (self.plugin(self._own[name]).package if name in self._own else "")
            if package:
                raise PluginError(f"the {self.kind} `{name}` is already provided by {package}")
        self._entries[spec.qualified] = (spec, plugin)
        self._own |= dict.fromkeys(names, spec)
        self._short.setdefault(spec.name, []).append(spec)

    def add_family(self, family: Family) -> None:
        """Takes in the models of a family, whose names all begin with its own and a slash.

        Raises:
            PluginError: somebody else has names that begin so.
        """
        other = next((plugin for spec, plugin in self._entries.values() if spec.namespace == family.name), None)
        if found := self.families.get(family.name):
            other = found.plugin
        if other:
            raise PluginError(f"the {self.kind}s `{family.name}/…` are already provided by {other.package}")
        self.families[family.name] = family

    def reserve(self, names: Collection[str], package: str) -> None:
        """Nobody can have these names any more: the package has what they mean elsewhere."""
        self._reserved |= dict.fromkeys(names, package)

    def __iter__(self) -> Iterator[S]:
        return iter(sorted((s for s, _ in self._entries.values()), key=lambda s: (s.name.lower(), s.namespace)))

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str) -> bool:
        try:
            return len(self._meant(name)) == 1
        except PluginError:  # of a family: `get` says what is wrong
            return False

    def shown_name(self, spec: S) -> str:
        """The shortest name that means this spec and no other."""
        return spec.name if [meant.qualified for meant in self._meant(spec.name)] == [spec.qualified] else spec.qualified

    def plugin(self, spec: S) -> Plugin:
        """Who provides it."""
        if spec.qualified in self._entries:
            return self._entries[spec.qualified][1]
        if self.files is not None and spec.qualified in self.files.plugins:
            return self.files.plugins[spec.qualified]
        return self.families[spec.namespace].plugin

    def get(self, name: str) -> S:
        """The spec of this name. A qualified name or an alias goes before the short names of others.

        Raises:
            PluginError: no such name (with the nearest spelling, or the package to install), or several.
        """
        found = self._meant(name)
        if len(found) == 1:
            return found[0]
        if found:
            choices = " or ".join(f"`{s.qualified}`" for s in found)
            raise PluginError(f"the {self.kind} name `{name}` is ambiguous", hint=f"write {choices}")
        raise PluginError(f"no {self.kind} is called `{name}`", hint=self._hint(name))

    def _meant(self, name: str) -> list[S]:
        if name in self._own:
            return [self._own[name]]
        if self.files is not None and name.startswith(PREFIX):
            return [self.files.find(name)]
        front, slash, own = name.partition("/")
        if slash and front in self.families:
            found = self.families[front].find(own)
            return [] if found is None else [found]
        return self._short.get(name, [])

    def _hint(self, name: str) -> str:
        if name.startswith(PREFIX):
            return (
                "code of a file runs only for models and data sets, "
                "where `train`, `eval`, `check`, `check-data`, `bench` or `measure` are given `--allow-code`"
            )
        front, _, rest = name.partition("/")
        if family := self.families.get(front):
            near = difflib.get_close_matches(rest, family.names(), 3, 0.6)
            listing = f"`distillctl {self._listing} '{front}/*'` lists all"
            return f"did you mean {' or '.join(f'`{front}/{n}`' for n in near)}? {listing}" if near else listing
        package = known_package(self.kind, name)
        if package in self._left_out:
            return f"it comes with the package `{package}`, which is installed but left out by `DISTILLCTL_PLUGINS`"
        broken = [plugin for plugin in self._plugins if plugin.problem]
        if own := next((plugin for plugin in broken if package and plugin.package == package), None):
            return f"`{package}` is installed but broken: {own.problem}"
        if package:
            return f"it comes with the package `{package}`: pip install {_source(package)}"
        known = [*{**self._own, **self._short, **self._reserved}]
        near = [f"{family.name}/{name}" for family in self.families.values() if name in family.names()]
        near = near or difflib.get_close_matches(name, known, 3, 0.6) or [n for n in known if n.lower() == name.lower()]
        listing = f"`distillctl {self._listing}` lists all"
        if broken:  # of somebody else: only they know what they would bring
            more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
            listing += f"; `{broken[0].package}` is installed but broken{more}: {broken[0].problem}"
        return f"did you mean {' or '.join(f'`{n}`' for n in near)}? {listing}" if near else listing


def _source(package: str) -> str:
    """What pip installs a package of this project from: its folder in a clone, of which the core runs; otherwise its name."""
    folder = Path(__file__).parents[2] / "plugins" / package
    if not folder.is_dir():
        return package
    return f"./{folder.relative_to(Path.cwd())}" if folder.is_relative_to(Path.cwd()) else str(folder)


def known_package(kind: str, name: str) -> str:
    """The package of this project that provides a name, if there is one; empty otherwise."""
    family = f"{name.partition('/')[0]}/*" if "/" in name else name
    return next((package for package, names in known_packages().get(kind, {}).items() if name in names or family in names), "")


@cache
def known_packages() -> Mapping[str, Mapping[str, list[str]]]:
    """Kind → package → names. The file is written by `tests/generate.py`."""
    found: dict[str, dict[str, list[str]]] = json.loads(Path(__file__).with_name("known_packages.json").read_text(encoding="utf-8"))
    return found
