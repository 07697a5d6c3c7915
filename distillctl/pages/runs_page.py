"""The report of several runs: groups that differ in their seed alone, their figures and curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from distillctl.analysis.control import LABELS_ALONE
from distillctl.analysis.grid import Group, Heat, best_first, group_panels, groups, heat_maps, mean_and_spread, with_curves
from distillctl.analysis.records import RunRecord
from distillctl.pages.charts import charts
from distillctl.pages.markup import Markup, details, element, join, paragraph, section, table
from distillctl.pages.page import page
from distillctl.pages.run_page import difference
from distillctl.text import counted


def runs_page(title: str, runs: Sequence[RunRecord], notes: Sequence[str] = ()) -> str:
    """The page of several runs. notes: what is left out, and why."""
    found = groups(runs)
    first = runs[0]
    figure, words = first.metric, first.names.get(first.metric, first.metric)
    same = [group for group in found if all(run.metric == figure for run in group.runs)]
    ordered = best_first(same, figure)
    finished = sum(run.finished for run in runs)
    told = f"{counted(len(runs), 'run')} in {counted(len(found), 'group')} that differ in their seed alone; {finished} finished."
    left = len(found) - len(same)
    beyond = f"{counted(left, 'group')} {'is left out: it is' if left == 1 else 'are left out: they are'} not measured by {words}."
    return page(
        title,
        paragraph(f"{told} {beyond}" if left else told),
        *map(paragraph, notes),
        section("Groups", _table(ordered, first)),
        section("Two settings", *(_heat(one, first, words) for one in heat_maps(same, figure))),
        section("Curves", *_curves(ordered, first)),
        section("Runs", details(counted(len(runs), "run"), _runs(runs))),
    )


def _mean(group: Group, figure: str) -> float:
    return mean_and_spread(group.figures(figure))[0]


def _table(found: Sequence[Group], first: RunRecord) -> Markup:
    """Each group with mean ± standard deviation of every figure, the best one first, and the gain over the control if there is one."""
    names = {name: words for name, words in first.names.items() if any(group.figures(name) for group in found)}
    controls = [group for group in found if group.method == LABELS_ALONE and group.figures(first.metric)]
    against = _mean(controls[0], first.metric) if len(controls) == 1 else None
    rows = []
    for group in found:
        values = group.figures(first.metric)
        cells = [_spread(first, name, group.figures(name)) for name in names]
        if against is not None:
            told = values and group is not controls[0]
            cells.append(difference(first, first.metric, _mean(group, first.metric) - against) if told else "")
        rows.append((group.name, f"{len(values)} of {len(group.runs)}", *cells))
    split = ", ".join(dict.fromkeys(run.split for group in found for run in group.runs if run.split))
    head = ("group", "finished", *names.values(), *([] if against is None else ["gain"]))
    note = f"Mean ± standard deviation of the sample (n − 1) over seeds, of the chosen epoch on {split}. " if split else ""
    gain = f"The gain is that of {names.get(first.metric, first.metric)} over the control. " if against is not None else ""
    return join([table(head, rows), paragraph(f"{note}{gain}Whether a difference is more than noise is told by `distillctl compare`.")])


def _spread(run: RunRecord, name: str, values: Sequence[float]) -> str:
    if not values:
        return ""
    mean, spread = mean_and_spread(values)
    shown = run.show(name, mean)
    if math.isnan(spread):
        return shown
    return f"{shown.removesuffix('%')} ± {run.show(name, spread)}"


def _heat(one: Heat, run: RunRecord, words: str) -> Markup:
    known = [value for line in one.cells for value in line if not math.isnan(value)]
    if not known:
        return Markup()
    least, most = min(known), max(known)

    def cell(value: float) -> object:
        if math.isnan(value):
            return ""
        share = (value - least) / (most - least) if most > least else 0.5
        return element("td", run.show(run.metric, value), style=f"--share:{8 + 62 * share:.0f}%")

    rows = [(f"{value:g}", *map(cell, cells)) for value, cells in zip(one.rows, one.cells, strict=True)]
    head = (f"{_short(one.row)} ↓ {_short(one.column)} →", *(f"{value:g}" for value in one.columns))
    return join([element("h3", f"{one.method}: mean {words}"), table(head, rows, class_="heat")])


def _short(key: str) -> str:
    return key.removeprefix("method.")


def _curves(found: Sequence[Group], first: RunRecord) -> list[Markup]:
    """The mean of each group, with its standard deviation as an area around it."""
    drawn = with_curves(found)
    left = len(found) - len(drawn)
    note = [paragraph(f"The {len(drawn)} best groups; {counted(left, 'more group')} would crowd the charts.")] if left > 0 else []
    found_panels = group_panels(drawn, first)
    return [*note, charts(found_panels, [group.name for group in drawn])] if found_panels else [paragraph("No epoch is finished yet.")]


def _runs(runs: Sequence[RunRecord]) -> Markup:
    metric = runs[0].metric
    words = runs[0].names.get(metric, metric)
    rows = []
    for run in runs:
        value = run.figures(run.split).get(metric) if run.split else None
        state = "finished" if run.finished else f"{run.epoch} of {run.epochs} epochs"
        rows.append((str(run.path), run.method, run.seed, state, "" if value is None else run.show(metric, value)))
    return table(("run", "method", "seed", "state", words), rows)
