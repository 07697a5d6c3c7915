"""Charts of a page: their data, which the page's script draws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from distillctl.analysis.curves import Curve, Panel
from distillctl.pages.markup import Markup, data_block, element, join

DIGITS = 6
"""Of each value: more than a screen shows."""
_COLOURS = {"student": 0, "training": 0, "val": 1, "test": 1, "teacher": 1, "control": 2}
"""Numbers of colours of lines that many charts have."""


def chart(panel: Panel, *, x: str = "epoch", x_percent: bool = False, diagonal: bool = False, names: Sequence[str] = ()) -> Markup:
    """A chart of lines; an area around a line that has a spread. The values under the pointer are told, and a drag zooms.

    x: what the horizontal axis counts. x_percent: as shares. diagonal: a line where both axes are equal, from 0 to 1.
    names: lines of several charts, which have the same colour in all of them.
    """
    known = {name: number for number, name in enumerate(names)} or _COLOURS
    lines = [_line(one, known.get(one.name, i)) for i, one in enumerate(panel.curves)]
    data = {"title": panel.title, "x": x, "percent": panel.percent, "xPercent": x_percent, "log": panel.log, "diagonal": diagonal}
    inner = [element("figcaption", panel.title), element("div", "", class_="plot"), element("div", "", class_="legend")]
    return element("figure", join([*inner, data_block({**data, "lines": lines})]), class_="chart")


def charts(panels: Iterable[Panel], names: Sequence[str] = ()) -> Markup:
    """Charts beside each other, as many as fit. names: as for `chart`."""
    made = [chart(panel, names=names) for panel in panels]
    return element("div", join(made), class_="charts") if made else Markup()


def _line(one: Curve, colour: int) -> dict[str, object]:
    return {
        "name": one.name,
        "colour": colour,
        "x": [_short(value) for value in one.x],
        "y": [None if value is None else _short(value) for value in one.y],
        **({"spread": [_short(value) for value in one.spread]} if one.spread else {}),
        **({"weight": [_short(value) for value in one.weight]} if one.weight else {}),
    }


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
