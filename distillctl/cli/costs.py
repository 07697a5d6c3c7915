"""What student and teacher of a run cost, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillctl.cli import render
from distillctl.text import counted, magnitude, milliseconds

_INDENT, _LABEL = 11, 12


def print_costs(info: Mapping[str, Any]) -> None:
    """A small table of `costs` in a `run.json`; of older runs, which have none, their parameters."""
    told = info.get("costs", {})
    costs: Mapping[str, Mapping[str, Any]] = {name: told[name] for name in ("student", "teacher") if name in told} or {
        name: {"parameters": count} for name, count in info.get("result", {}).get("parameters", {}).items()
    }
    if not costs:
        return
    rows = {
        "parameters": ([f"{cost['parameters']:,}" for cost in costs.values()], "times as many"),
        "MACs": ([magnitude(cost["macs"]) if "macs" in cost else "" for cost in costs.values()], "times as many"),
        "ms": ([milliseconds(cost["ms"] / 1000) if "ms" in cost else "" for cost in costs.values()], "times as long"),
    }
    widths = [max(len(name), *(len(cells[i]) for cells, _ in rows.values())) for i, name in enumerate(costs)]
    heads = "  ".join(name.rjust(width) for name, width in zip(costs, widths, strict=True))
    render.line(f"{'size':<{_INDENT}}{'':<{_LABEL}}{heads}")
    for label, (cells, words) in rows.items():
        if not any(cells):
            continue
        line = f"{'':<{_INDENT}}{label:<{_LABEL}}{'  '.join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))}"
        more = [text for text in (_ratio(costs, label.lower(), words), _where(costs) if label == "ms" else "") if text]
        render.words(f"{line}{'  ' if more else ''}{', '.join(more)}", _INDENT + _LABEL)
    methods: Mapping[str, int] = told.get("methods", {})
    if any(methods.values()):
        told = f"{methods['parameters']:,} parameters{macs_told(methods.get('macs'))}"
        render.words(f"{'methods':<{_INDENT}}{told}, in training alone", _INDENT)


def macs_told(macs: int | None) -> str:
    """What stands behind a number of parameters; nothing where multiply-accumulates could not be counted."""
    return "" if macs is None else f", {magnitude(macs)} MACs an image"


def _ratio(costs: Mapping[str, Mapping[str, Any]], key: str, words: str) -> str:
    """How much more the teacher has than the student."""
    student, teacher = (costs.get(side, {}).get(key) for side in ("student", "teacher"))
    return f"{teacher / student:.1f} {words}" if student and teacher else ""


def _where(costs: Mapping[str, Mapping[str, Any]]) -> str:
    cost = next(cost for cost in costs.values() if "ms" in cost)
    threads = f", {counted(cost['threads'], 'thread')}" if cost["device"] == "cpu" else ""
    return f"one image on {cost['device']}{threads}"
