"""`check-data`: every file decoded."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import TYPE_CHECKING, Annotated

import typer

from distillctl.cli import options, render
from distillctl.text import counted, some

if TYPE_CHECKING:
    from distillctl.commands.check_data import DataReport, Range

_FEW_CLASSES = 20
"""So many have a line each without being asked for."""


def check_data(
    profile: options.Profile,
    set_: options.Set = None,
    seed: options.Seed = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="One line for every class, also where there are more than 20.")] = False,
    show: Annotated[int, typer.Option("--show", min=0, metavar="N", help="Name at most N broken files; --json has all.")] = 10,
    allow_code: options.AllowCode = False,
    as_json: options.Json = False,
) -> None:
    """Decode every image of every split: counts per class, sizes, copies across splits, and what is broken and how.

    Copies are found by their decoded pixels. The exit code is 1 if a file is broken, and 0 otherwise.

    Examples:
        distillctl check-data photos.toml

        distillctl check-data profiles/quickstart.toml --json
    """
    from distillctl.plugin.registry import Registry
    from distillctl.profile.reading import load

    registry = Registry.load()
    if allow_code:
        registry.allow_code()
    checked = load(profile, registry=registry, overrides=set_ or (), seed=seed)
    with render.loading():  # after what is wrong with the profile
        from distillctl.commands.check_data import check_data as look

    report = look(checked)
    if as_json:
        render.as_json(report.as_dict())
    else:
        print_report(report, per_class=per_class, show=show)
    if report.broken:
        raise typer.Exit(1)


def print_report(report: DataReport, *, per_class: bool, show: int) -> None:
    """Sizes, classes, copies, and what is broken."""
    render.words(f"data: {report.data}")
    render.table(
        ["split", "images", "width", "height", "of a class"],
        [
            [name, f"{facts.images:,}", _sizes(facts.width), _sizes(facts.height), _spread(list(facts.classes.values()))]
            for name, facts in report.splits.items()
        ],
        indent=2,
    )
    classes = list(next(iter(report.splits.values())).classes)
    if classes and (per_class or len(classes) <= _FEW_CLASSES):
        rows = [[name, *(str(facts.classes.get(name, 0)) for facts in report.splits.values())] for name in classes]
        render.table(["class", *report.splits], rows, indent=2)
    for remark in report.remarks:
        render.words(f"note: {remark}")
    for text in _copies(report):
        render.words(text)
    if not report.broken:
        render.words(f"ok: {counted(sum(facts.images for facts in report.splits.values()), 'image')}, none broken")
        return
    kinds = Counter(one.kind for one in report.broken)
    render.words(f"broken: {counted(len(report.broken), 'image')} ({', '.join(f'{kind} {n}' for kind, n in kinds.most_common())})")
    for one in report.broken[:show]:
        render.words(f"  {one.split}, {one.kind}: {one.problem}", 6)
    if len(report.broken) > show:
        render.words(f"  and {len(report.broken) - show} more: `--json` has all, `--show N` names N", 6)


def _copies(report: DataReport) -> list[str]:
    """What is told of pictures that are there more than once."""
    lines = []
    for first, second in combinations(report.splits, 2):
        both = [places for places in report.across if {first, second} <= {place.split for place in places}]
        if both:
            named = some([place.image for place in both[0] if place.split in (first, second)])
            lines.append(f"WARNING: {counted(len(both), 'picture')} in {first} and in {second}, too, such as {named}")
    for name in report.splits:
        copies = sum(max(0, sum(place.split == name for place in places) - 1) for places in report.duplicates)
        if copies:
            lines.append(f"note: {counted(copies, 'image')} of {name} are copies of another one there")
    if wrong := report.contradicting:
        named = ", ".join(f"`{place.image}` as `{place.label}`" for place in wrong[0][:3])
        lines.append(f"WARNING: {counted(len(wrong), 'picture')} with several classes, such as {named}")
    return lines


def _sizes(sizes: Range | None) -> str:
    if sizes is None:
        return ""
    return str(sizes.min) if sizes.min == sizes.max else f"{sizes.min} – {sizes.median:g} – {sizes.max}"


def _spread(counts: list[int]) -> str:
    if not counts:
        return ""
    return str(counts[0]) if min(counts) == max(counts) else f"{min(counts)} – {max(counts)}"
