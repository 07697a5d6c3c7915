"""Runs side by side: in which settings they differ, what is the same but for the seed, and two settings as a grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distillctl.analysis.control import LABELS_ALONE
from distillctl.analysis.curves import Curve, Panel, curve, evaluated_on, mean_curve, meaningful, number, thinned
from distillctl.analysis.records import RunRecord
from distillctl.analysis.settings import METHOD, Facts, differing, text_of, value_of
from distillctl.analysis.statistics import mean, sample_sd

DRAWN = 24
"""Groups whose curves are drawn: more lines can no longer be told apart."""
POINTS = 300
"""Of a curve."""


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone.

    name: the method, and the values in which groups of this method differ.
    values: these, by dotted key.
    """

    name: str
    method: str
    values: Mapping[str, Any]
    runs: Sequence[RunRecord]

    def figures(self, name: str) -> list[float]:
        """A figure of each finished run that has it."""
        found = (meaningful(run, name, run.figures(run.split).get(name)) for run in self.runs if run.finished and run.split)
        return [value for value in found if value is not None]


def groups(runs: Sequence[RunRecord]) -> list[Group]:
    """The groups, in the order of their first runs, controls last."""
    known = [(run, Facts.of(run)) for run in runs]
    keys = [one.key for one in differing(known) if one.kind == "setting" and one.key != METHOD]
    cells: dict[tuple[str, ...], list[tuple[RunRecord, Facts]]] = {}
    for run, facts in known:
        cells.setdefault((run.method, *(value_of(key, facts) for key in keys)), []).append((run, facts))
    found = []
    for members in cells.values():
        first, facts = members[0]
        beside = [other.settings for run, other in known if run.method == first.method]
        own = [key for key in keys if len({text_of(settings.get(key)) for settings in beside}) > 1]
        told = (f"{key.removeprefix(f'{METHOD}.')} {text_of(facts.settings.get(key))}" for key in own)
        values = {key: facts.settings.get(key) for key in own}
        found.append(Group(", ".join([first.method, *told]), first.method, values, [run for run, _ in members]))
    return sorted(found, key=lambda group: group.method == LABELS_ALONE)


@dataclass(frozen=True)
class Heat:
    """Two numeric settings of one method and the mean of a figure for each pair of their values; NaN where there is no run.

    cells: rows by `rows`, columns by `columns`.
    """

    method: str
    row: str
    column: str
    rows: Sequence[float]
    columns: Sequence[float]
    cells: Sequence[Sequence[float]]


def heat_maps(found: Sequence[Group], figure: str) -> list[Heat]:
    """One for each method whose groups differ in just two numeric settings, both with several values."""
    maps = []
    for method in dict.fromkeys(group.method for group in found):
        same = [group for group in found if group.method == method]
        keys = [key for key in same[0].values if len({repr(group.values[key]) for group in same}) > 1]
        if len(keys) != 2 or any(number(group.values[key]) is None for group in same for key in keys):
            continue
        row, column = keys
        rows, columns = ([*sorted({float(group.values[key]) for group in same})] for key in keys)
        means: dict[tuple[float, float], float] = {}
        for group in same:
            if values := group.figures(figure):
                means[float(group.values[row]), float(group.values[column])] = mean(values)
        maps.append(Heat(method, row, column, rows, columns, [[means.get((r, c), math.nan) for c in columns] for r in rows]))
    return maps


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the sample's standard deviation (n − 1), which is NaN of one value."""
    spread = sample_sd(values)
    return mean(values), math.nan if spread is None else spread


def best_first(found: Sequence[Group], figure: str) -> list[Group]:
    """Groups by their mean of a figure, higher ones first; those without it last."""
    means = {id(group): mean_and_spread(values)[0] for group in found if (values := group.figures(figure))}
    return sorted(found, key=lambda group: -means.get(id(group), -math.inf))


def with_curves(found: Sequence[Group], most: int = DRAWN) -> list[Group]:
    """The first groups that have recorded epochs."""
    return [group for group in found if any(run.history for run in group.runs)][:most]


def group_panels(found: Sequence[Group], first: RunRecord) -> list[Panel]:
    """The mean curve of each group, with the sample's standard deviation over its seeds.

    first: the run that says how figures are shown.
    """
    lines = [(group.name, [run.part() for run in group.runs]) for group in found]
    panels = [_panel(f"{words}, evaluated", lines, name, percent=first.is_share(name)) for name, words in first.names.items()]
    panels.append(_panel("Loss in training", lines, "total", log=True))
    panels.append(_panel("Agreement with the teacher", lines, "agreement", percent=True))
    panels.append(_panel("Learning rate", lines, "lr"))
    return [panel for panel in panels if panel is not None]


_Lines = Sequence[tuple[str, Sequence[Sequence[Mapping[str, Any]]]]]
"""Of each group its name, and the lines of each run."""


def _panel(title: str, found: _Lines, name: str, *, percent: bool = False, log: bool = False) -> Panel | None:
    """The mean curves of what an epoch records under a name, be it a figure of its evaluation or a value of its own."""
    drawn: list[Curve] = []
    for group, runs in found:
        both = [curve(group, lines, evaluated_on(lines), name) or curve(group, lines, name) for lines in runs]
        curves = [one for one in both if one is not None]
        if curves and (mean := mean_curve(group, curves)).x:
            drawn.append(thinned(mean, POINTS))
    return Panel(title, drawn, percent, log) if drawn else None
