"""Plots as files for papers. matplotlib is imported when one is drawn, which takes over a second."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distillctl.analysis.curves import Panel, panels
from distillctl.analysis.grid import Heat, best_first, group_panels, groups, heat_maps, with_curves
from distillctl.analysis.records import RunRecord
from distillctl.errors import MachineError
from distillctl.files import write_atomically

FORMATS = ("svg", "pdf", "png")
_SIZE = (4.2, 2.8)
"""Inches: a column of most papers."""
_ODD = re.compile(r"[^a-z0-9]+")
_SETTINGS: Any = {"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "distillctl", "font.size": 9, "savefig.dpi": 200}
"""Letters stay letters, and the same plot is the same file."""


def check_matplotlib() -> None:
    """Whether plots can be drawn.

    Raises:
        MachineError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise MachineError("plots need `matplotlib`, which is not installed", hint="`pip install 'distillctl[analysis]'`")


def write_plots(folder: Path, runs: Sequence[RunRecord], control: RunRecord | None, form: str) -> list[Path]:
    """Writes a file for each chart of a run, or of several, and for each heat map.

    control: of a single run. form: one of `FORMATS`.

    Raises:
        MachineError: a file cannot be written.
    """
    if len(runs) == 1:
        drawn: list[tuple[str, Any]] = [(panel.title, _lines(panel)) for panel in panels(runs[0], control)]
    else:
        metric = runs[0].metric
        same = [group for group in groups(runs) if all(run.metric == metric for run in group.runs)]
        shown = with_curves(best_first(same, metric))
        names = [group.name for group in shown]
        drawn = [(panel.title, _lines(panel, names)) for panel in group_panels(shown, runs[0])]
        drawn += [(f"{one.method} {one.row} {one.column}", _heat(one, runs[0])) for one in heat_maps(same, metric)]
    files: dict[Path, Any] = {}
    for name, figure in drawn:
        stem = _ODD.sub("-", name.lower()).strip("-")[:80] or "plot"
        path = folder / f"{stem}.{form}"
        while path in files:
            path = path.with_stem(f"{path.stem}-2")
        files[path] = figure
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, figure in files.items():
            save(path, figure)
    except OSError as error:
        raise MachineError(f"the plots cannot be written to `{folder}`: {(error.strerror or str(error)).lower()}") from error
    return list(files)


def figure(width: float = _SIZE[0], height: float = _SIZE[1]) -> Any:
    """An empty figure of matplotlib, of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(path: Path, made: Any) -> None:
    """Writes a figure in the format that the ending names.

    Raises:
        OSError: it cannot be written.
    """
    import matplotlib

    form = path.suffix.lower().lstrip(".")
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form)
    with matplotlib.rc_context(_SETTINGS):
        write_atomically(path, lambda temporary: made.savefig(temporary, format=form, metadata=metadata))


def plain(text: str) -> str:
    """Text in which no dollar sign begins a formula."""
    return text.replace("$", r"\$")


def _lines(panel: Panel, names: Sequence[str] = ()) -> Any:
    """The lines of a chart. names: lines of several charts, which have the same colour in all of them."""
    made = figure()
    axes = made.subplots()
    for one in panel.curves:
        y = [math.nan if value is None else value for value in one.y]
        colour = {"color": f"C{names.index(one.name) % 10}"} if one.name in names else {}
        (line,) = axes.plot(one.x, y, label=plain(one.name), linewidth=1.2, **colour)
        if one.spread:
            low, high = ([v + sign * s for v, s in zip(y, one.spread, strict=True)] for sign in (-1, 1))
            axes.fill_between(one.x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    known = [value for one in panel.curves for value in one.y if value is not None]
    if panel.log and min(known) > 0 and max(known) / min(known) > 30:
        axes.set_yscale("log")
    if panel.percent:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value * 100:g}%")
    axes.set(xlabel="epoch", ylabel=plain(panel.title))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    return made


def _heat(one: Heat, run: RunRecord) -> Any:
    made = figure(1.2 + 0.7 * len(one.columns), 1 + 0.45 * len(one.rows))
    axes = made.subplots()
    known = [value for line in one.cells for value in line if not math.isnan(value)]
    axes.imshow(one.cells, cmap="Blues", aspect="auto", vmin=2 * min(known) - max(known), vmax=2 * max(known) - min(known))
    axes.set(xlabel=plain(one.column.removeprefix("method.")), ylabel=plain(one.row.removeprefix("method.")))
    axes.set_xticks(range(len(one.columns)), [f"{value:g}" for value in one.columns])
    axes.set_yticks(range(len(one.rows)), [f"{value:g}" for value in one.rows])
    for i, line in enumerate(one.cells):
        for j, value in enumerate(line):
            if not math.isnan(value):
                axes.text(j, i, plain(run.show(run.metric, value)), ha="center", va="center", fontsize=7)
    return made
