"""`list-methods`, `list-models`, `list-datasets`, `plugins`."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any

import typer

from distillctl.api.specs import MethodSpec, ModelSpec
from distillctl.cli import completion, options, render
from distillctl.cli.app import COMMANDS
from distillctl.errors import ProfileError
from distillctl.plugin.catalog import Catalog, Plugin
from distillctl.plugin.registry import Registry


def catalog_rows(catalog: Catalog[Any]) -> list[dict[str, Any]]:
    """Every spec of a catalog as plain data: name, kind, summary, paper, package, version, and the qualified name.

    Of models also `parameters`, how many there are with as many classes as `classes` says; both None where the package does not say it.
    """
    return [
        {
            "name": catalog.shown_name(spec),
            "kind": spec.kind if isinstance(spec, MethodSpec) else catalog.kind,
            "summary": spec.summary,
            "paper": spec.paper,
            "package": catalog.plugin(spec).package,
            "version": catalog.plugin(spec).version,
            "qualified": spec.qualified,
            **(parameters_of(spec) if isinstance(spec, ModelSpec) else {}),
        }
        for spec in catalog
    ]


def family_rows(catalog: Catalog[Any], each: bool) -> list[dict[str, Any]]:
    """As `catalog_rows`, of families: a row for each of their models, or one for each family. Their summaries say what is known of size."""
    rows: list[dict[str, Any]] = []
    for family in catalog.families.values():
        names = family.names()
        count = f"{len(names):,} models: {family.spec.summary}; `distillctl list-models '{family.name}/*'`"
        for name, summary in names.items() if each else [("…", count)]:
            called = f"{family.name}/{name}"
            row = {"name": called, "kind": catalog.kind, "summary": summary, "paper": family.spec.paper, "qualified": called}
            row |= {"package": family.plugin.package, "version": family.plugin.version}
            rows.append({**row, "parameters": None, "classes": None})
    return rows


def parameters_of(spec: ModelSpec) -> dict[str, int | None]:
    """How many parameters a model trains, and with how many classes."""
    return {"parameters": spec.parameters, "classes": spec.classes} if spec.parameters else {"parameters": None, "classes": None}


def problem_rows(registry: Registry) -> list[dict[str, str]]:
    """Every plugin with a problem as plain data."""
    return [{"plugin": p.name, "package": p.package, "version": p.version, "reason": p.problem} for p in registry.broken]


def plugin_rows(registry: Registry) -> list[dict[str, Any]]:
    """Every plugin as plain data, with the qualified names of what it provides by kind."""
    return [
        {
            "name": plugin.name,
            "package": plugin.package,
            "version": plugin.version,
            "provides": {kind: names for kind, catalog in registry.catalogs.items() if (names := _provided(catalog, plugin))},
            "problem": plugin.problem,
        }
        for plugin in registry.plugins
    ]


Pattern = Annotated[str, typer.Argument(metavar="[PATTERN]", help="A part of the name, or a pattern with * for it.", show_default=False)]
Package = Annotated[
    str,
    typer.Option("--package", metavar="NAME", help="Of this package alone.", show_default=False, autocompletion=completion.packages),
]


def list_methods(
    pattern: Pattern = "",
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="Of this kind alone, such as logits.", show_default=False)] = "",
    package: Package = "",
    json: options.Json = False,
) -> None:
    """List the methods: what can stand in [method].

    Examples:
        distillctl list-methods --kind logits

        distillctl list-methods --json
    """
    _list("methods", json, ("name", "kind", "summary", "paper", "package", "version"), pattern, package, kind)


def list_models(pattern: Pattern = "", package: Package = "", json: options.Json = False) -> None:
    """List the models: what can be a student or a teacher. Of a large family there is one row, unless a pattern asks for more.

    Examples:
        distillctl list-models 'timm/*vit*'

        distillctl list-models --json
    """
    _list("models", json, ("name", "parameters", "summary", "paper", "package", "version"), pattern, package)


def list_datasets(pattern: Pattern = "", package: Package = "", json: options.Json = False) -> None:
    """List the data sets: what can stand in [dataset].

    Examples:
        distillctl list-datasets

        distillctl list-datasets --json
    """
    _list("datasets", json, ("name", "summary", "paper", "package", "version"), pattern, package)


def plugins(json: options.Json = False) -> None:
    """List the installed plugins, what each provides, and what is wrong with it.

    Examples:
        distillctl plugins

        DISTILLCTL_PLUGINS=cifar,crd distillctl plugins --json
    """
    registry = Registry.load(own_commands=COMMANDS)
    rows = plugin_rows(registry)
    if json:
        render.as_json({"plugins": rows, "problems": problem_rows(registry)})
        return
    render.table(
        ("plugin", "package", "version", "provides"), [(r["name"], r["package"], r["version"], _provides(r["provides"])) for r in rows]
    )
    _problems(registry)


def _provided(catalog: Catalog[Any], plugin: Plugin) -> list[str]:
    families = [f"{family.name}/…" for family in catalog.families.values() if family.plugin is plugin]
    return [spec.qualified for spec in catalog if catalog.plugin(spec) is plugin] + families


def _provides(provides: dict[str, list[str]]) -> str:
    parts = []
    for kind, names in provides.items():
        listed = ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:4])} and {len(names) - 4} more"
        parts.append(f"{kind}: {listed}")
    return "; ".join(parts) or "nothing"


def _list(title: str, json: bool, columns: tuple[str, ...], pattern: str, package: str, kind: str = "") -> None:
    registry = Registry.load(own_commands=COMMANDS)
    every = catalog_rows(registry.catalogs[title]) + family_rows(registry.catalogs[title], each=bool(pattern))
    for key, wanted in (("package", package), ("kind", kind)):
        if wanted and wanted not in (known := sorted({row[key] for row in every})):
            raise ProfileError(f"no {title} are of the {key} `{wanted}`", where=f"--{key}", hint=f"there are {', '.join(known)}")
    rows = [row for row in every if _fits(row, pattern) and package in ("", row["package"]) and kind in ("", row["kind"])]
    if json:
        render.as_json({title: rows, "problems": problem_rows(registry)})
        return
    counts = _counts([row["parameters"] for row in rows]) if "parameters" in columns else []
    shown = [row | {"parameters": count} for row, count in zip(rows, counts, strict=True)] if counts else rows
    render.table(columns, [[row[c] for c in columns] for row in shown], less=("paper", "version", "package"))
    if any(counts):
        render.words(f"parameters: with {_classes(rows)}")
    if not rows:
        render.line(f"no {title} are called like `{pattern}`" if pattern else f"no {title} are installed")
    _problems(registry)


def _counts(numbers: Sequence[int | None]) -> list[str]:
    """Numbers of one column, with their last digits below each other."""
    texts = ["" if number is None else f"{number:,}" for number in numbers]
    width = max(map(len, texts), default=0)
    return [text and text.rjust(width) for text in texts]


def _classes(rows: Sequence[dict[str, Any]]) -> str:
    """With how many classes the models of each package are counted: `1000 classes (distillctl), 100 classes (distillctl-cifar)`."""
    packages: dict[int, list[str]] = {}
    for row in rows:
        if row["classes"] and row["package"] not in packages.setdefault(row["classes"], []):
            packages[row["classes"]].append(row["package"])
    return ", ".join(f"{classes} classes ({', '.join(names)})" for classes, names in sorted(packages.items(), reverse=True))


def _fits(row: dict[str, Any], pattern: str) -> bool:
    """Whether a pattern is for the name, with its namespace or without, in any case."""
    names = (row["name"].lower(), row["qualified"].lower())
    pattern = pattern.lower() if any(c in pattern for c in "*?[") else f"*{pattern.lower()}*"
    return any(fnmatchcase(name, pattern) for name in names)


def _problems(registry: Registry) -> None:
    if not registry.broken:
        return
    render.line()
    render.heading("broken plugins")
    for plugin in registry.broken:
        name = plugin.package if plugin.package == plugin.name else f"{plugin.package} ({plugin.name})"
        render.words(f"  {name} {plugin.version}: {plugin.problem}")
