"""Finds plugins, owns names, and keeps a broken plugin from taking the others down.

Built-in methods, models, data sets and optimizers come through the same hooks as everybody else's. Nothing here imports torch: what a
spec names is loaded by `load`, when a run is assembled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property, partial
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from itertools import compress, islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import pluggy

from distillctl import __version__
from distillctl.api import hooks
from distillctl.api.specs import CommandSpec, DatasetSpec, MethodSpec, ModelFamily, ModelSpec, OptimizerSpec, Spec, TaskSpec, TrackerSpec
from distillctl.errors import PluginError, Problem
from distillctl.plugin import own_files
from distillctl.plugin.catalog import Catalog, Plugin
from distillctl.plugin.family import Family
from distillctl.plugin.importing import RefusedError, attempt, reason, stdout_to_stderr
from distillctl.plugin.own_files import OwnFiles
from distillctl.plugin.validation import malformed
from distillctl.text import one_line

if TYPE_CHECKING:
    from distillctl.api.options import Options

GROUP = "distillctl"
BUILTIN = tuple(
    f"distillctl.builtin.{module}"
    for module in ("classification", "unlabelled", "methods", "torchvision", "imagefolder", "npz", "optimizers", "trackers")
)

MAX_SPECS = 10_000
"""Specs that one hook may return."""
MAX_PROBLEMS = 5
"""Problems of one plugin's specs that are told."""

C = TypeVar("C")
S = TypeVar("S", bound=Spec)


class Kind(Generic[S]):
    """One kind of objects, as an attribute of the registry that gives their catalog.

    word: what one of them is called in messages.
    spec: what a hook returns for one.
    listing: the command that lists all.
    """

    def __init__(self, word: str, spec: type[S], listing: str = "plugins") -> None:
        self.word, self.spec, self.listing = word, spec, listing
        self.attribute = ""

    def __set_name__(self, owner: type[Registry], name: str) -> None:
        self.attribute = name

    @overload
    def __get__(self, registry: None, owner: type[Registry]) -> Kind[S]: ...

    @overload
    def __get__(self, registry: Registry, owner: type[Registry]) -> Catalog[S]: ...

    def __get__(self, registry: Registry | None, owner: type[Registry]) -> Kind[S] | Catalog[S]:
        return self if registry is None else registry.catalogs[self.attribute]


class Registry:
    """All plugins of this installation. `Registry.load()` makes one. Its kinds of objects are the lines below, and stand nowhere else."""

    methods = Kind("method", MethodSpec, "list-methods")
    models = Kind("model", ModelSpec, "list-models")
    datasets = Kind("data set", DatasetSpec, "list-datasets")
    optimizers = Kind("optimizer", OptimizerSpec)
    tasks = Kind("task", TaskSpec)
    trackers = Kind("tracker", TrackerSpec)
    commands = Kind("command", CommandSpec, "--help")

    def __init__(self, left_out: Collection[str] = ()) -> None:
        kinds: list[Kind[Any]] = [kind for kind in vars(Registry).values() if isinstance(kind, Kind)]
        self.plugins: list[Plugin] = []
        self.catalogs: dict[str, Catalog[Any]] = {k.attribute: Catalog(k.word, k.listing, left_out, self.plugins) for k in kinds}
        self._attribute: dict[type, str] = {kind.spec: kind.attribute for kind in kinds} | {ModelFamily: "models"}
        self._pm = pluggy.PluginManager(hooks.PROJECT)
        self._pm.add_hookspecs(hooks)

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None, *, own_commands: Collection[str] = ()) -> Registry:
        """Built-ins, and the installed plugins; `DISTILLCTL_PLUGINS=a,b` limits the latter to these names.

        own_commands: names that a plugin cannot have for its commands.
        """
        wanted = (os.environ if environment is None else environment).get("DISTILLCTL_PLUGINS")
        chosen = None if wanted is None else {w.strip() for w in wanted.split(",") if w.strip()}
        points, unreadable = _entry_points()
        found = [(point, *_package(point.dist)) for point in sorted(_unique(points), key=lambda e: e.name)]
        used = [chosen is None or point.name in chosen or package in chosen for point, package, _ in found]
        registry = cls({package for (_, package, _), use in zip(found, used, strict=True) if not use})
        registry.commands.reserve(own_commands, "distillctl")
        with stdout_to_stderr():
            for module in BUILTIN:
                registry.add(Plugin(module.rpartition(".")[2], "distillctl", __version__), partial(import_module, module))
            for point, package, version in compress(found, used):
                registry.add(Plugin(point.name, package, version), point.load)
        registry.plugins += unreadable
        there = {name for point, package, _ in found for name in (point.name, package)}
        for name in sorted((chosen or set()) - there):
            problem = "`DISTILLCTL_PLUGINS` names it, but no installed plugin or package is called so"
            registry.plugins.append(Plugin(name, name, "", problem=problem))
        return registry

    def allow_code(self) -> None:
        """From now on the name `file:nets.py:Net` means a model or a data set in that file, which is run. For the user's own word, never a
        profile's.
        """
        self.models.files = OwnFiles("model", own_files.model)
        self.datasets.files = OwnFiles("data set", own_files.dataset)

    @cached_property
    def broken(self) -> list[Plugin]:
        """Plugins with a problem."""
        return [p for p in self.plugins if p.problem]

    def add(self, plugin: Plugin, load: Callable[[], Any]) -> None:
        """Imports one plugin and takes its specs in; whatever goes wrong is written into `plugin.problem`."""
        self.plugins.append(plugin)
        try:
            specs = attempt(lambda: list(self._collect(plugin, load())))
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
        attribute = self._attribute.get(type(spec))
        if attribute is None:
            return f"a hook returned {type(spec).__name__!r} instead of a spec"
        assert isinstance(spec, Spec)
        if problem := malformed(spec):
            return problem
        try:
            if isinstance(spec, ModelFamily):
                self.models.add_family(Family(spec, plugin, load))
            else:
                self.catalogs[attribute].add(spec, plugin)
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
        with stdout_to_stderr():
            return attempt(lambda: getattr(import_module(module), attribute))
    except RefusedError as error:
        cause = error.__cause__
        why = str(cause) if isinstance(cause, ImportError | AttributeError | SyntaxError) else str(error)
        problem = Problem(
            f"`{plugin}` cannot be loaded from `{reference}`: {one_line(why, 300)}", "", f"`python -c 'import {module}'` shows where"
        )
        raise PluginError(problem) from cause


def load_options(spec: Spec) -> type[Options]:
    """The class of a spec's options; `Options` itself where there is nothing to set.

    Raises:
        PluginError: it cannot be imported, or is something else.
    """
    from distillctl.api.options import Options  # and pydantic with it, which lists do not need

    cls: Any = load(spec.options, spec.name) if spec.options else Options
    if not (isinstance(cls, type) and issubclass(cls, Options)):
        raise PluginError(
            f"`{spec.options}`, the options of `{spec.name}`, is not a subclass of `distillctl.Options`",
            hint="the fault is the plugin's: `distillctl plugins` tells which package it is",
        )
    return cls


def load_class(spec: Spec, base: type[C], kind: str) -> type[C]:
    """The class that a spec names.

    base: what it has to be a subclass of; `distillctl` exports it by the same name.
    kind: the word for what the spec declares.

    Raises:
        PluginError: it cannot be imported, or is something else.
    """
    cls: Any = load(spec.implementation, spec.name)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise PluginError(f"the implementation of the {kind} `{spec.name}` is not a subclass of `distillctl.{base.__name__}`")
    return cls


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
