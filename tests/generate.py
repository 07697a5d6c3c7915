"""Writes what follows from the folders of `plugins/` into the files that state it, so that a new plugin needs no other edit:

    uv run python tests/generate.py

`pyproject.toml` names each plugin, since uv installs only those members of a workspace that the root depends on; `known_packages.json`
tells which package to install for a name; README.md lists the methods and the packages, and names runs. Plugins are read from their
folders, whether they are installed or not. `tests/test_generated.py` compares. The table of pairs
in plugins/README.md takes minutes, and its test writes it: `uv run pytest tests/methods/test_pairs.py --write`.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import tomllib
from collections.abc import Collection, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from distillctl.plugin.catalog import Catalog, Plugin
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.rundir.directory import place

ROOT = Path(__file__).parents[1]
PYPROJECT, README = ROOT / "pyproject.toml", ROOT / "README.md"
KNOWN = ROOT / "distillctl" / "plugin" / "known_packages.json"
PROFILES = ("quickstart", "digits_teacher")
"""Profiles whose runs the README names."""
MOST_NAMES = 4
"""Names of one kind that the list of packages shows."""


def folders(root: Path = ROOT) -> Mapping[str, Path]:
    """Package → its folder."""
    return {path.parent.name: path.parent for path in sorted(root.glob("plugins/distillctl-*/pyproject.toml"))}


def registry(root: Path = ROOT) -> Registry:
    """The built-ins, and the plugins as they lie in their folders."""
    found = Registry.load({"DISTILLCTL_PLUGINS": ""})
    for package, folder in folders(root).items():
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert project["name"] == package, f"{folder} holds `{project['name']}`"
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
        for name, module in project["entry-points"]["distillctl"].items():
            found.add(Plugin(name, package, project["version"]), partial(import_module, module))
    problems = [f"{plugin.package}: {plugin.problem}" for plugin in found.broken if plugin.package in folders(root)]
    assert not problems, problems
    return found


def generated(root: Path = ROOT) -> dict[Path, str]:
    """File → what it must hold."""
    found = registry(root)
    packages = folders(root)
    project = PYPROJECT.read_text(encoding="utf-8")
    project = block(project, "plugins", "".join(f'    "{name}",\n' for name in packages), comment="    # {}")
    project = block(project, "sources", "".join(f"{name} = {{ workspace = true }}\n" for name in packages), comment="# {}")
    ours = {"distillctl", *packages}
    readme = README.read_text(encoding="utf-8")
    readme = block(readme, "methods", f"\n{methods_table(found, ours)}\n\n")
    readme = block(readme, "packages", f"\n{packages_table(found, packages)}\n\n")
    count = sum(found.methods.plugin(spec).package in ours for spec in found.methods) - 1
    readme, replaced = re.subn(r"\| \d+, and labels alone \|", f"| {count}, and labels alone |", readme)
    assert replaced == 1
    readme = with_run_names(readme)
    return {PYPROJECT: project, README: readme, KNOWN: known_packages(found, packages)}


def block(text: str, name: str, content: str, *, comment: str = "<!-- {} -->") -> str:
    """The text with other content between the comments `name` and `/name`."""
    begin, end = f"{comment.format(name)}\n", comment.format(f"/{name}")
    assert text.count(begin) == text.count(end) == 1, f"`{name}` must have one beginning and one end"
    before, _, rest = text.partition(begin)
    return f"{before}{begin}{content}{end}{rest.partition(end)[2]}"


def with_run_names(text: str) -> str:
    """The text with the names that runs of its profiles get where it is typed: in the root of a clone."""
    installed = Registry.load({})
    with contextlib.chdir(ROOT):
        for name in PROFILES:
            profile = load(Path("profiles", f"{name}.toml"), registry=installed)
            run, _ = place(profile.name, profile.digest, root=Path("of nobody"))
            text, replaced = re.subn(rf"runs/{name}-[0-9a-f]{{8}}", f"runs/{run.name}", text)
            assert replaced, f"README.md shows no run of {name}"
    return text


def names_of(catalog: Catalog[Any], package: str) -> list[str]:
    """What a user can write to mean something of this package."""
    specs = [spec for spec in catalog if catalog.plugin(spec).package == package]
    families = {f"{family.name}/*" for family in catalog.families.values() if family.plugin.package == package}
    return sorted({name for spec in specs for name in (spec.qualified, catalog.shown_name(spec), *spec.aliases)} | families)


def known_packages(found: Registry, packages: Mapping[str, Path]) -> str:
    """Kind → package → names, with a line for each package."""
    kinds = []
    for catalog in found.catalogs.values():
        lines = [f"    {json.dumps(package)}: {json.dumps(names)}" for package in packages if (names := names_of(catalog, package))]
        if lines:
            kinds.append(f"  {json.dumps(catalog.kind)}: {{\n" + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(kinds) + "\n}\n"


def methods_table(registry: Registry, packages: Collection[str]) -> str:
    """The methods that these packages provide as a Markdown table, by name, without a newline at the end.

    Columns: method, kind, what it does, paper, package. An arXiv id becomes a link.
    """
    rows = ["| method | kind | what it does | paper | package |", "| --- | --- | --- | --- | --- |"]
    for spec in registry.methods:
        package = registry.methods.plugin(spec).package
        if package in packages:
            paper = re.sub(r"arXiv (\d{4}\.\d{4,5})", r"arXiv [\1](https://arxiv.org/abs/\1)", spec.paper)
            cells = (f"`{registry.methods.shown_name(spec)}`", spec.kind, spec.summary, paper, f"`{package}`")
            rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows)


def packages_table(found: Registry, packages: Mapping[str, Path]) -> str:
    """The packages that bring something else than methods, as a Markdown table."""
    rows = ["| package | brings |", "| --- | --- |"]
    for package in packages:
        brought = []
        for catalog in found.catalogs.values():
            names = [f"`{catalog.shown_name(spec)}`" for spec in catalog if catalog.plugin(spec).package == package]
            families = [family for family in catalog.families.values() if family.plugin.package == package]
            names += [f"{family.spec.summary} (`{family.name}/…`)" for family in families]
            if names:
                more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
                brought.append((catalog.kind, f"{catalog.kind}s: {', '.join(names[:MOST_NAMES])}{more}"))
        if any(kind != "method" for kind, _ in brought):
            rows.append(f"| [`{package}`](plugins/{package}/README.md) | {'; '.join(text for _, text in brought)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    for path, text in generated().items():
        if text != path.read_text(encoding="utf-8"):
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(ROOT)} has changed")
