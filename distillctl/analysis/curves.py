"""What a run recorded epoch by epoch, as curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distillctl.analysis.records import MAIN, RunRecord


@dataclass(frozen=True)
class Curve:
    """Values at some epochs, or whatever `x` counts; None where there is none.

    spread: beside each value, its standard deviation.
    weight: beside each value, its share of what all are means of.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    spread: Sequence[float] = ()
    weight: Sequence[float] = ()


@dataclass(frozen=True)
class Panel:
    """Curves that share their axes. percent: values are shares."""

    title: str
    curves: Sequence[Curve]
    percent: bool = False
    log: bool = False


def number(value: object) -> float | None:
    """A finite number of a file; None for whatever else stands there."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def meaningful(run: RunRecord, name: str, value: object) -> float | None:
    """A figure of a run; None where it means nothing, as a share below 0 by which COCO says that there is no object of a size."""
    found = number(value)
    return None if found is not None and found < 0 and run.is_share(name) else found


def curve(name: str, lines: Iterable[Mapping[str, Any]], *keys: str) -> Curve | None:
    """One value of each line by the epochs of the lines; None where no line has it."""
    x: list[float] = []
    y: list[float | None] = []
    for line in lines:
        value: Any = line
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if (epoch := number(line.get("epoch"))) is not None and (found := number(value)) is not None:
            x.append(epoch)
            y.append(found)
    return Curve(name, x, y) if x else None


def evaluated_on(lines: Sequence[Mapping[str, Any]]) -> str:
    """The split on which the epochs of a run were evaluated; empty if they were not."""
    return next((split for split in ("val", "test") if any(isinstance(line.get(split), Mapping) for line in lines)), "")


def panels(run: RunRecord, control: RunRecord | None = None) -> list[Panel]:
    """Every curve of a run, and beside its figures those of its control."""
    found: list[tuple[Panel, ...]] = []
    phases = dict.fromkeys(str(line.get("phase", MAIN)) for line in run.history)
    for name in phases:
        lines = run.part(name)
        where = "" if name == MAIN else f" in the phase {name}"
        terms = curve("total", lines, "total"), *(curve(term, lines, "terms", term) for term in _names(lines, "terms"))
        found.append(_panel(f"Loss{where}", terms, log=True))
        if name == MAIN:
            found += _figures(run, lines, control)
            found.append(_panel("Agreement with the teacher", [curve("agreement", lines, "agreement")], percent=True))
        found.append(_panel(f"Learning rate{where}", [curve("rate", lines, "lr")]))
        for method in _names(lines, "methods"):
            found += _of_method(method, lines, where)
        seconds = [curve(words, lines, key) for key, words in _SECONDS.items() if any(key in line for line in lines)]
        found.append(_panel(f"Seconds of an epoch{where}", seconds))
    return [panel for some in found for panel in some]


_SECONDS = {"seconds": "whole", "train_seconds": "steps", "evaluation_seconds": "evaluation"}


def _figures(run: RunRecord, lines: Sequence[Mapping[str, Any]], control: RunRecord | None) -> list[tuple[Panel, ...]]:
    """The figure that chooses the best epoch first; the others after it, by themselves."""
    split = evaluated_on(lines)
    beside = [] if control is None else control.part()
    found = []
    for name, words in run.names.items():
        curves = [curve("training", lines, f"train_{name}"), curve(split, lines, split, name), curve("control", beside, split, name)]
        kept = [one for one in curves if one is not None and any(meaningful(run, name, value) is not None for value in one.y)]
        if kept and (len(kept) > 1 or kept[0].name == split):
            found.append(_panel(f"{words} on {split}" if len(kept) == 1 else words, kept, percent=run.is_share(name)))
    return found


def _of_method(method: str, lines: Sequence[Mapping[str, Any]], where: str) -> list[tuple[Panel, ...]]:
    """What a method measured of itself."""
    notes = [{"epoch": line.get("epoch"), "notes": line.get("methods", {}).get(method)} for line in lines]
    names = _names(notes, "notes")
    return [_panel(f"{method}: {name}{where}", [curve(name, notes, "notes", name)]) for name in names]


def _panel(title: str, curves: Iterable[Curve | None], *, percent: bool = False, log: bool = False) -> tuple[Panel, ...]:
    kept = [one for one in curves if one is not None]
    return (Panel(title, kept, percent, log),) if kept else ()


def _names(lines: Iterable[Mapping[str, Any]], table: str) -> list[str]:
    return list(dict.fromkeys(name for line in lines if isinstance(found := line.get(table), Mapping) for name in found))


def thinned(one: Curve, most: int) -> Curve:
    """A curve of at most about `most` points, the last one among them."""
    if len(one.x) <= most:
        return one
    step = math.ceil(len(one.x) / most)
    places = sorted({*range(0, len(one.x), step), len(one.x) - 1})
    spread = [one.spread[i] for i in places] if one.spread else ()
    return Curve(one.name, [one.x[i] for i in places], [one.y[i] for i in places], spread)


def mean_curve(name: str, curves: Sequence[Curve]) -> Curve:
    """The mean of curves at every epoch that all of them have, with the sample's standard deviation where there are several."""
    values: dict[float, list[float]] = {}
    for one in curves:
        for x, y in zip(one.x, one.y, strict=True):
            if y is not None:
                values.setdefault(x, []).append(y)
    shared = sorted(x for x, found in values.items() if len(found) == len(curves))
    means = [math.fsum(values[x]) / len(curves) for x in shared]
    spread = [
        math.sqrt(math.fsum((y - mean) ** 2 for y in values[x]) / (len(curves) - 1)) if len(curves) > 1 else 0.0
        for x, mean in zip(shared, means, strict=True)
    ]
    return Curve(name, shared, means, spread if len(curves) > 1 else ())
