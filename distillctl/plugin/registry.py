"""Finds plugins, owns names, and keeps a broken plugin from taking the others down.

Built-in methods, models, data sets and optimizers come through the same hooks as everybody else's. Nothing here
imports torch: what a spec names is loaded by `load`, when a run is assembled.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from itertools import islice
from typing import Any, Generic, TypeVar

import pluggy

from distillctl import __version__
from distillctl.api import hooks
from distillctl.api.specs import DatasetSpec, MethodSpec, ModelSpec, OptimizerSpec, Spec, TaskSpec, TrackerSpec
from distillctl.errors import PluginError, Problem
from distillctl.plugin.importing import SECONDS, RefusedError, attempt, reason, seconds_allowed, supervised
from distillctl.plugin.validation import malformed
from distillctl.text import one_line

GROUP = "distillctl"
BUILTIN = tuple(f"distillctl.builtin.{module}" for module in ("classification", "methods", "torchvision", "imagefolder", "optimizers"))

MAX_SPECS = 10_000
"""Specs that one hook may return."""
MAX_PROBLEMS = 5
"""Problems of one plugin's specs that are told."""

S = TypeVar("S", bound=Spec)


@dataclass
class Plugin:
    """One entry point: what it provides, or why it does not.

    problem: empty if all is well. `loaded` tells whether the rest of it works all the same.
    notes: what it does besides while it is imported, as sentences. That was undone, and the plugin works.
    """

    name: str
    package: str
    version: str
    provides: list[Spec] = field(default_factory=list)
    problem: str = ""
    loaded: bool = False
    notes: list[str] = field(default_factory=list)


class Catalog(Generic[S]):
    """The objects of one kind, by name, qualified name and alias."""

    def __init__(self, kind: str, left_out: set[str] | None = None) -> None:
        self.kind = kind
        self.left_out = set() if left_out is None else left_out
        self._entries: dict[str, tuple[S, Plugin]] = {}
        self._own: dict[str, S] = {}  # by qualified name and alias, which nobody else can have
        self._short: dict[str, list[S]] = {}  # by name without namespace, which several may have

    def add(self, spec: S, plugin: Plugin) -> None:
        """Takes a spec in.

        Raises:
            PluginError: the name is taken; the message names the package that has it.
        """
        names = {spec.qualified, *spec.aliases}
        for name in names:
            if name in self._own:
                raise PluginError(f"the {self.kind} `{name}` is already provided by {self.plugin(self._own[name]).package}")
        self._entries[spec.qualified] = (spec, plugin)
        self._own |= dict.fromkeys(names, spec)
        self._short.setdefault(spec.name, []).append(spec)

    def __iter__(self) -> Iterator[S]:
        return iter(sorted((s for s, _ in self._entries.values()), key=lambda s: (s.name.lower(), s.namespace)))

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str) -> bool:
        return len(self._meant(name)) == 1

    def shown_name(self, spec: S) -> str:
        """The shortest name that means this spec and no other."""
        return spec.name if self._meant(spec.name) == [spec] else spec.qualified

    def plugin(self, spec: S) -> Plugin:
        """Who provides it."""
        return self._entries[spec.qualified][1]

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
        return [self._own[name]] if name in self._own else self._short.get(name, [])

    def _hint(self, name: str) -> str:
        package = known_package(self.kind, name)
        if package in self.left_out:
            return f"it comes with the package `{package}`, which is installed but left out by `DISTILLCTL_PLUGINS`"
        if package:
            return f"it comes with the package `{package}`: pip install {package}"
        known = [*{**self._own, **self._short}]
        near = difflib.get_close_matches(name, known, 3, 0.6) or [n for n in known if n.lower() == name.lower()]
        command = dict.fromkeys(("optimizer", "task", "tracker"), "plugins").get(self.kind, "list-" + self.kind.replace(" ", "") + "s")
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
        self.tasks: Catalog[TaskSpec] = Catalog("task", self._left_out)
        self.trackers: Catalog[TrackerSpec] = Catalog("tracker", self._left_out)
        self.plugins: list[Plugin] = []
        self.seconds = SECONDS  # that the import of one plugin may take
        self._pm = pluggy.PluginManager(hooks.PROJECT)
        self._pm.add_hookspecs(hooks)

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None) -> Registry:
        """Built-ins, and the installed plugins; `DISTILLCTL_PLUGINS=a,b` limits the latter to these names.

        Raises:
            PluginError: `DISTILLCTL_PLUGIN_TIMEOUT` is no number of seconds.
        """
        environment = os.environ if environment is None else environment
        registry = cls()
        registry.seconds = seconds_allowed(environment)
        for module in BUILTIN:
            registry.add(Plugin(module.rpartition(".")[2], "distillctl", __version__), partial(import_module, module), limited=False)
        wanted = environment.get("DISTILLCTL_PLUGINS")
        chosen = None if wanted is None else {w.strip() for w in wanted.split(",") if w.strip()}
        found: set[str] = set()
        points, unreadable = _entry_points()
        for point in sorted(_unique(points), key=lambda e: e.name):
            package, version = _package(point.dist)
            found |= {point.name, package}
            if chosen is None or point.name in chosen or package in chosen:
                registry.add(Plugin(point.name, package, version), point.load)
            else:
                registry._left_out.add(package)
        registry.plugins += unreadable
        for name in sorted((chosen or set()) - found):
            problem = "`DISTILLCTL_PLUGINS` names it, but no installed plugin or package is called so"
            registry.plugins.append(Plugin(name, name, "", problem=problem))
        return registry

    @cached_property
    def broken(self) -> list[Plugin]:
        """Plugins with a problem."""
        return [p for p in self.plugins if p.problem]

    def add(self, plugin: Plugin, load: Callable[[], Any], *, limited: bool = True) -> None:
        """Imports one plugin and takes its specs in; whatever goes wrong is written into `plugin.problem`, the rest into `plugin.notes`.

        limited: whether the import ends after `seconds`; what everything needs may take as long as the disk takes.

        Raises:
            PluginError: it was interrupted where the process cannot go on.
        """
        self.plugins.append(plugin)
        try:
            specs, plugin.notes = supervised(plugin.name, lambda: list(self._collect(plugin, load())), self.seconds if limited else 0)
        except RefusedError as error:
            cause = error.__cause__
            plugin.problem = cause.problems[0].message if isinstance(cause, PluginError) else str(error)
            return
        plugin.loaded = True
        problems = [p for p in (self._take(spec, plugin) for spec in specs) if p]
        plugin.problem = "; ".join(_some(problems))

    def _collect(self, plugin: Plugin, module: Any) -> Iterable[object]:
        """Calls the hooks of one plugin, if it is written for this version of them."""
        written_for = getattr(module, "DISTILLCTL_API", hooks.API_VERSION)
        if written_for != hooks.API_VERSION:
            theirs = one_line(ascii(written_for), 20)
            raise PluginError(f"it is written for version {theirs} of the plugin interface; this distillctl has {hooks.API_VERSION}")
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
                    specs = [*islice(result, MAX_SPECS + 1)] if isinstance(result, Sequence) and not isinstance(result, str) else [result]
                    if len(specs) > MAX_SPECS:
                        raise PluginError(f"a hook returns more than {MAX_SPECS} specs")
                    yield from specs

    def _take(self, spec: object, plugin: Plugin) -> str:
        """Files a spec under its kind; returns what is wrong with it."""
        catalogs: dict[type, Catalog[Any]] = {
            MethodSpec: self.methods, ModelSpec: self.models, DatasetSpec: self.datasets, OptimizerSpec: self.optimizers,
            TaskSpec: self.tasks, TrackerSpec: self.trackers,
        }  # fmt: skip
        catalog = catalogs.get(type(spec))
        if catalog is None:
            return f"a hook returned {type(spec).__name__!r} instead of a spec"
        assert isinstance(spec, Spec)
        if problem := malformed(spec):
            return problem
        try:
            catalog.add(spec, plugin)
        except PluginError as error:
            return error.problems[0].message
        plugin.provides.append(spec)
        return ""


def load(reference: str, plugin: str) -> Any:
    """The object that `"package.module:attribute"` names. References stand in the specs of plugins, never in a profile.

    Raises:
        PluginError: it cannot be imported; the message names the plugin and the reason.
    """
    module, _, attribute = reference.partition(":")
    try:
        return attempt(lambda: getattr(import_module(module), attribute))
    except RefusedError as error:
        cause = error.__cause__
        why = str(cause) if isinstance(cause, ImportError | AttributeError | SyntaxError) else str(error)
        problem = Problem(
            f"`{plugin}` cannot be loaded from `{reference}`: {one_line(why, 300)}", "", f"`python -c 'import {module}'` shows where"
        )
        raise PluginError(problem) from cause


def known_package(kind: str, name: str) -> str:
    """The package of this project that provides a name, if there is one; empty otherwise."""
    from distillctl.plugin.known_packages import PACKAGES

    return next((package for package, names in PACKAGES.get(kind, {}).items() if name in names), "")


def _some(problems: Sequence[str]) -> list[str]:
    """The first problems, and how many there are besides."""
    return [
        *problems[:MAX_PROBLEMS],
        *([f"{len(problems) - MAX_PROBLEMS} more of its specs are wrong"] if len(problems) > MAX_PROBLEMS else ()),
    ]


def _unique(points: Iterable[EntryPoint]) -> list[EntryPoint]:
    """An editable install beside a wheel lists an entry point twice."""
    return list({(p.name, p.value, _package(p.dist)[0]): p for p in points}.values())


def _entry_points() -> tuple[list[EntryPoint], list[Plugin]]:
    """All entry points of plugins, and packages whose list of them cannot be read."""
    try:
        return list(entry_points(group=GROUP)), []
    except Exception:  # noqa: BLE001 - one package's file spoils the list of all, with whatever its parser stumbles over
        found: list[EntryPoint] = []
        unreadable: list[Plugin] = []
        for dist in distributions():
            try:
                found += dist.entry_points.select(group=GROUP)
            except Exception as error:  # noqa: BLE001
                package, version = _package(dist)
                unreadable.append(Plugin(package, package, version, problem=f"its `entry_points.txt` cannot be read: {reason(error)}"))
        return found, unreadable


def _package(dist: Distribution | None) -> tuple[str, str]:
    """Name and version of a package, as far as it states them."""
    try:
        return (str(dist.name or "unknown package"), str(dist.version or "")) if dist else ("unknown package", "")
    except Exception:  # noqa: BLE001 - a damaged `METADATA` may raise anything, by version of Python
        return "unknown package", ""
