"""`show`: all there is to know about one method, model, data set or optimizer, or about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from distillctl.cli import completion, options, render
from distillctl.cli.description import description
from distillctl.cli.run_argument import is_run
from distillctl.cli.show_run import print_run, run_description
from distillctl.errors import PluginError, ProfileError
from distillctl.plugin.catalog import Catalog
from distillctl.plugin.registry import Registry
from distillctl.profile.problems import no_run
from distillctl.text import counted, magnitude

_WIDE = 160
"""Columns from which a description fits beside the other cells of a table of options."""


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|RUN",
            help="A method, model, data set or optimizer, or a run directory.",
            show_default=False,
            autocompletion=completion.objects_and_runs,
        ),
    ],
    pair: Annotated[
        str,
        typer.Option(
            "--pair",
            metavar="TEACHER:STUDENT",
            help="What a method costs between two models.",
            show_default=False,
        ),
    ] = "",
    cite: Annotated[bool, typer.Option("--bibtex", help="Print how its paper is cited, and nothing else.")] = False,
    json: options.Json = False,
) -> None:
    """Show a method, model, data set or optimizer: options with type, default and bounds, formula, an example to paste.

    Of a run directory: what was trained, its figures, and what student and teacher cost.

    Examples:
        distillctl show crd --pair cifar/resnet32x4:cifar/resnet8x4

        distillctl show runs/NAME
    """
    registry = Registry.load()
    if pair:
        _show_pair(registry, name, pair, as_json=json)
        return
    if is_run(Path(name)):
        if cite:
            raise ProfileError(f"`{name}` is a run, which has no paper", where="--bibtex", hint="leave it out")
        render.as_json(run_description(Path(name))) if json else print_run(Path(name), registry)
        return
    found = [description(catalog, spec) for catalog, spec in find(registry, name)]
    if cite:
        if not (entries := dict.fromkeys(entry["bibtex"] for entry in found if entry["bibtex"])):
            told = " and ".join(entry["paper"] for entry in found if entry["paper"])
            hint = f"its paper is {told}" if told else ""
            raise ProfileError(f"the package of `{name}` says too little of its paper for BibTeX", where="--bibtex", hint=hint)
        for line in "\n\n".join(entries).split("\n"):
            render.words(line)
        return
    if json:
        render.as_json({"found": found})
        return
    for i, entry in enumerate(found):
        if i:
            render.line()
        _print(entry)


def _show_pair(registry: Registry, name: str, pair: str, *, as_json: bool) -> None:
    """What a method costs between two models."""
    teacher, colon, student = pair.partition(":")
    if not colon:
        raise ProfileError(f"`{pair}` does not name two models", where="--pair", hint="for example `--pair cifar/wrn_40_2:cifar/wrn_16_2`")
    method = registry.methods.get(name)
    one, other = registry.models.get(teacher), registry.models.get(student)
    with render.loading():
        from distillctl.commands.pair_costs import pair_costs
    found = pair_costs(method, one, other, registry)
    if as_json:
        render.as_json({"method": name, "pair": pair, "costs": found.as_dict()})
        return
    wraps = f" around {found.inner}" if found.inner else ""
    data = f"images of {found.size} pixels in batches of {found.batch}, {counted(found.classes, 'class', 'es')}"
    render.heading(f"{name}{wraps} between {teacher} and {student}: {data}")
    rows = {"student": found.student, "teacher": found.teacher, "method": found.method}
    lines = [(side, f"{cost['parameters']:,}", magnitude(cost["macs"]) if "macs" in cost else "") for side, cost in rows.items() if cost]
    render.table(("", "parameters", "MACs an image"), lines, indent=2)
    if found.teacher is None:
        render.words(f"  `{name}` needs no teacher", 2)


def find(registry: Registry, name: str) -> list[tuple[Catalog[Any], Any]]:
    """All objects of a name, of whatever kind.

    Raises:
        PluginError: the name is ambiguous within one kind.
        ProfileError: there is nothing of that name; the hint has the nearest spelling, or the package to install.
    """
    found, hints = [], []
    for catalog in (registry.methods, registry.models, registry.datasets, registry.optimizers):
        try:
            found.append((catalog, catalog.get(name)))
        except PluginError as error:
            if "ambiguous" in error.problems[0].message:
                raise
            hints.append(error.problems[0].hint)
    if not found:
        if problem := no_run(name):
            raise ProfileError(problem)
        useful = (
            [h for h in hints if "pip install" in h or "installed but broken: " in h]
            or [h for h in hints if h.startswith("did you mean")]
            or hints
        )
        raise ProfileError(f"no method, model, data set or optimizer is called `{name}`", hint=useful[0])
    return found


def _value(value: Any) -> str:
    from distillctl.profile.writing import value_text

    return "" if value is None else value_text(value)


def _print_options(options: list[dict[str, Any]]) -> None:
    """A table of the options, with their descriptions below where the terminal is too narrow for them."""
    headers = ("option", "type", "default", "bounds")
    rows = [(o["name"], o["type"], "required" if o["required"] else _value(o["default"]), o["bounds"]) for o in options]
    if not 0 < render.width() < _WIDE:
        more = [(o["default_from"], o["description"]) for o in options]
        render.table((*headers, "default from", "description"), [(*a, *b) for a, b in zip(rows, more, strict=True)], indent=2)
        return
    render.table(headers, rows, indent=2)
    render.line()
    for o in options:
        source = f" (default: {o['default_from']})" if o["default_from"] not in ("", "package") else ""
        render.words(f"  {o['name']}: {o['description']}{source}", 4)


def _print(entry: dict[str, Any]) -> None:
    render.heading(f"{entry['kind']} {entry['name']}: {entry['summary']}")
    facts = {
        "paper": entry["paper"],
        "package": f"{entry['package']} {entry['version']}",
        "aliases": ", ".join(entry["aliases"]),
        "formula": entry.get("formula"),
        "wraps": entry.get("wraps"),
        "teacher": {True: "needed", False: "not needed"}.get(entry.get("needs_teacher", "")),
        "input size": "input_size" in entry and f"{entry['input_size']} pixels",
        "parameters": entry.get("parameters") and f"{entry['parameters']:,} with {entry['classes']} classes",
        "weights": ", ".join(entry.get("weights", ())),
        "classifier": entry.get("classifier"),
    }
    for name, value in facts.items():
        if value:
            render.words(f"  {name:<11}{value}", 13)
    if entry["options"]:
        render.line()
        render.heading("options")
        _print_options(entry["options"])
    if entry.get("presets"):
        render.line()
        render.heading("presets: defaults for certain data or pairs; later ones win")
        preset_rows = [
            (
                p["dataset"] or "any",
                p["teacher"] or "any",
                p["student"] or "any",
                ", ".join(f"{k} = {_value(v)}" for k, v in p["when"].items()),
                ", ".join(f"{k} = {_value(v)}" for k, v in p["values"].items()),
                p["source"],
            )
            for p in entry["presets"]
        ]
        render.table(("data set", "teacher", "student", "with", "values", "source"), preset_rows, indent=2)
    if seen := entry.get("weights_input"):
        render.line()
        render.heading("weights: what they were made to see, and their licence")
        seen_rows = [
            (
                weights,
                f"{row['size']} px" if row["size"] else "",
                _value(list(row["mean"])),
                _value(list(row["std"])),
                " ".join(filter(None, (f"{row['crop']:g}" if row["crop"] else "", row["interpolation"]))),
                row["license"],
            )
            for weights, row in seen.items()
        ]
        render.table(("weights", "size", "mean", "std", "crop", "licence"), seen_rows, indent=2)
    if entry.get("stages"):
        render.line()
        render.heading("stages: names of features, and the module that each is taken from")
        render.table(("stage", "module"), list(entry["stages"].items()), indent=2)
    render.line()
    render.heading("example")
    for line in entry["example"].splitlines():
        render.line(line)
