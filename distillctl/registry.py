"""Finds plugins, owns names, and keeps a broken plugin from taking the others down.

Built-in methods, models, data sets and optimizers come through the same hooks as everybody else's. Nothing here
imports torch: what a spec names is loaded by `load`, when a run is assembled.
"""

from __future__ import annotations

import difflib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

import pluggy

from distillctl import __version__
from distillctl.api import hooks
from distillctl.api.specs import DatasetSpec, MethodSpec, ModelSpec, OptimizerSpec, Spec
from distillctl.errors import PluginError, Problem

GROUP = "distillctl"
BUILTIN = tuple(f"distillctl.builtin.{module}" for module in ("methods", "torchvision", "imagefolder", "optimizers"))

S = TypeVar("S", bound=Spec)


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
    """The objects of one kind, by name, qualified name and alias."""

    def __init__(self, kind: str, left_out: set[str] | None = None) -> None:
        self.kind = kind
        self.left_out = set() if left_out is None else left_out
        self._by_name: dict[str, list[tuple[S, Plugin]]] = {}
        self._entries: dict[str, tuple[S, Plugin]] = {}

    def add(self, spec: S, plugin: Plugin) -> None:
        """Takes a spec in.

        Raises:
            PluginError: the name is taken; the message names the package that has it.
        """
        names = {spec.qualified, *spec.aliases}
        for name in names:
            owner = next((p for s, p in self._entries.values() if name in (s.qualified, *s.aliases)), None)
            if owner is not None:
                raise PluginError(f"the {self.kind} `{name}` is already provided by {owner.package}")
        self._entries[spec.qualified] = (spec, plugin)
        for name in names | {spec.name}:
            self._by_name.setdefault(name, []).append((spec, plugin))

    def __iter__(self) -> Iterator[S]:
        return iter(sorted((s for s, _ in self._entries.values()), key=lambda s: (s.name.lower(), s.namespace)))

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str) -> bool:
        return len(self._by_name.get(name, ())) == 1

    def shown_name(self, spec: S) -> str:
        """The shortest name that means this spec and no other."""
        return spec.name if spec.name in self else spec.qualified

    def plugin(self, spec: S) -> Plugin:
        """Who provides it."""
        return self._entries[spec.qualified][1]

    def get(self, name: str) -> S:
        """The spec of this name.

        Raises:
            PluginError: no such name (with the nearest spelling, or the package to install), or several.
        """
        found = self._by_name.get(name, [])
        if len(found) == 1:
            return found[0][0]
        if found:
            choices = " or ".join(f"`{s.qualified}`" for s, _ in found)
            raise PluginError(f"the {self.kind} name `{name}` is ambiguous", hint=f"write {choices}")
        raise PluginError(f"no {self.kind} is called `{name}`", hint=self._hint(name))

    def _hint(self, name: str) -> str:
        package = known_package(self.kind, name)
        if package in self.left_out:
            return f"it comes with the package `{package}`, which is installed but left out by `DISTILLCTL_PLUGINS`"
        if package:
            return f"it comes with the package `{package}`: pip install {package}"
        near = difflib.get_close_matches(name, list(self._by_name), 3, 0.6) or [
            n for n in self._by_name if n.lower() == name.lower()
        ]  # fmt: skip
        command = {"optimizer": "plugins"}.get(self.kind, "list-" + self.kind.replace(" ", "") + "s")
        listing = f"`distillctl {command}` lists all"
        return f"did you mean {' or '.join(f'`{n}`' for n in near)}? {listing}" if near else listing


class Registry:
    """All plugins of this installation. `Registry.load()` makes one."""

    def __init__(self) -> None:
        self._left_out: set[str] = set()  # packages that are installed but not wanted
        self.methods: Catalog[MethodSpec] = Catalog("method", self._left_out)
        self.models: Catalog[ModelSpec] = Catalog("model", self._left_out)
        self.datasets: Catalog[DatasetSpec] = Catalog("data set", self._left_out)
        self.optimizers: Catalog[OptimizerSpec] = Catalog("optimizer", self._left_out)
        self.plugins: list[Plugin] = []
        self._pm = pluggy.PluginManager(hooks.PROJECT)
        self._pm.add_hookspecs(hooks)

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None) -> Registry:
        """Built-ins, and the installed plugins; `DISTILLCTL_PLUGINS=a,b` limits the latter to these names."""
        registry = cls()
        for module in BUILTIN:
            registry.add(Plugin(module.rpartition(".")[2], "distillctl", __version__), lambda m=module: import_module(m))  # type: ignore[misc]
        wanted = (os.environ if environment is None else environment).get("DISTILLCTL_PLUGINS")
        chosen = None if wanted is None else {w.strip() for w in wanted.split(",") if w.strip()}
        found: set[str] = set()
        for point in sorted(_unique(entry_points(group=GROUP)), key=lambda e: e.name):
            package, version = (point.dist.name, point.dist.version) if point.dist else ("unknown package", "")
            found |= {point.name, package}
            if chosen is None or point.name in chosen or package in chosen:
                registry.add(Plugin(point.name, package, version), point.load)
            else:
                registry._left_out.add(package)
        for name in sorted((chosen or set()) - found):
            problem = "`DISTILLCTL_PLUGINS` names it, but no installed plugin or package is called so"
            registry.plugins.append(Plugin(name, name, "", problem=problem))
        return registry

    @cached_property
    def broken(self) -> list[Plugin]:
        """Plugins with a problem."""
        return [p for p in self.plugins if p.problem]

    def add(self, plugin: Plugin, load: Callable[[], Any]) -> None:
        """Imports one plugin and takes its specs in; whatever goes wrong is written into `plugin.problem`."""
        self.plugins.append(plugin)
        printed = io.StringIO()
        try:
            with redirect_stdout(printed), redirect_stderr(printed):
                specs = list(self._collect(plugin, load()))
        except KeyboardInterrupt:
            raise
        except SystemExit as error:
            plugin.problem = f"it ends the program while it is imported (exit code {error.code})"
            return
        except PluginError as error:
            plugin.problem = error.problems[0].message
            return
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, and must not take the others down
            plugin.problem = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            return
        plugin.loaded = True
        problems = [p for p in (self._take(spec, plugin) for spec in specs) if p]
        if text := printed.getvalue().strip():
            problems.append(f"it prints while it is imported: {text.splitlines()[0][:80]!r}")
        plugin.problem = "; ".join(problems)

    def _collect(self, plugin: Plugin, module: Any) -> Iterable[object]:
        """Calls the hooks of one plugin."""
        self._pm.register(module, f"{plugin.package}: {plugin.name}")  # two packages may give an entry point the same name
        try:
            self._pm.check_pending()
        except pluggy.PluginValidationError as error:
            self._pm.unregister(module)
            raise PluginError(f"it implements a hook that does not exist: {error}") from error
        callers = self._pm.get_hookcallers(module) or []
        if not callers:
            raise PluginError("it implements no hook; is `@hookimpl` missing?")
        for caller in callers:
            for implementation in caller.get_hookimpls():
                if implementation.plugin is module:
                    result = implementation.function()
                    yield from result if isinstance(result, Sequence) else (result,)

    def _take(self, spec: object, plugin: Plugin) -> str:
        """Files a spec under its kind; returns what is wrong with it."""
        catalogs: dict[type, Catalog[Any]] = {
            MethodSpec: self.methods, ModelSpec: self.models, DatasetSpec: self.datasets, OptimizerSpec: self.optimizers,
        }  # fmt: skip
        catalog = catalogs.get(type(spec))
        if catalog is None:
            return f"a hook returned {type(spec).__name__!r} instead of a spec"
        assert isinstance(spec, Spec)
        if problem := _malformed(spec):
            return problem
        try:
            catalog.add(spec, plugin)
        except PluginError as error:
            return error.problems[0].message
        plugin.provides.append(spec)
        return ""


def load(reference: str, plugin: str) -> Any:
    """The object that `"package.module:attribute"` names.

    Raises:
        PluginError: it cannot be imported; the message names the plugin and the reason.
    """
    module, _, attribute = reference.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise PluginError(Problem(f"`{plugin}` cannot be loaded from `{reference}`: {error}")) from error


def known_package(kind: str, name: str) -> str:
    """The package of this project that provides a name, if there is one; empty otherwise."""
    from distillctl.known import PACKAGES

    return next((package for package, names in PACKAGES.get(kind, {}).items() if name in names), "")


def _malformed(spec: Spec) -> str:
    for attribute in ("name", "summary", "implementation"):
        value = getattr(spec, attribute)
        if not isinstance(value, str) or not value:
            return f"{type(spec).__name__} without a `{attribute}`"
    if spec.implementation.count(":") != 1:
        return f"the implementation of `{spec.name}` is not of the form `package.module:attribute`"
    return ""


def _unique(points: Iterable[EntryPoint]) -> list[EntryPoint]:
    """An editable install beside a wheel lists an entry point twice."""
    return list({(p.name, p.value, p.dist.name if p.dist else ""): p for p in points}.values())
