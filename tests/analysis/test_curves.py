"""Curves of what a run recorded."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from distillctl.analysis.curves import Curve, curve, mean_curve, panels, thinned
from distillctl.analysis.records import RunRecord

Make = Callable[..., Path]


def test_every_term_rate_figure_and_agreement_has_its_curve(make_run: Make, tmp_path: Path) -> None:
    run, control = (RunRecord.read(make_run(tmp_path / name, method=name)) for name in ("kd", "none"))
    found = {panel.title: panel for panel in panels(run, control)}
    assert {title: [one.name for one in panel.curves] for title, panel in found.items()} == {
        "Loss": ["total", "task", "kd"],
        "top-1": ["training", "val", "control"],
        "loss": ["val", "control"],
        "Agreement with the teacher": ["agreement"],
        "Learning rate": ["rate"],
        "Seconds of an epoch": ["whole"],
    }
    assert found["top-1"].curves[1] == Curve("val", [1, 2, 3], [0.25, 0.5, 0.75])
    assert [title for title, panel in found.items() if panel.percent] == ["top-1", "Agreement with the teacher"]
    assert [title for title, panel in found.items() if panel.log] == ["Loss"]


def test_phases_have_curves_of_their_own(make_run: Make, tmp_path: Path) -> None:
    path = make_run(tmp_path / "a")
    lines = (path / "metrics.jsonl").read_text().splitlines()
    phase = {"phase": "ft.first", "epoch": 1, "total": 5.0, "terms": {"ft": 5.0}, "lr": 0.1, "methods": {"ft": {"width": 2.0}}}
    (path / "metrics.jsonl").write_text("\n".join([json.dumps(phase), *lines]))
    found = {panel.title: panel.curves for panel in panels(RunRecord.read(path))}
    assert [one.name for one in found["Loss in the phase ft.first"]] == ["total", "ft"]
    assert found["ft: width in the phase ft.first"] == [Curve("width", [1], [2.0])]
    assert found["Loss"][0].x == [1, 2, 3]


def test_what_is_not_a_finite_number_is_left_out() -> None:
    values = (0.5, None, "<script>", math.nan, math.inf, True, 0.75)
    lines = [{"epoch": i, "a": value} for i, value in enumerate(values)]
    assert curve("a", lines, "a") == Curve("a", [0, 6], [0.5, 0.75])
    assert curve("a", [{"epoch": 1, "a": 3}], "a", "b") is None


def test_the_mean_of_seeds_with_their_standard_deviation() -> None:
    seeds = [Curve("", [1, 2, 3], y) for y in ([0.1, 0.2, 0.6], [0.3, 0.2, 0.3], [0.2, 0.5, 0.9])]
    found = mean_curve("kd", [*seeds[:2], Curve("", [1, 2], seeds[2].y[:2])])
    assert (found.name, found.x) == ("kd", [1, 2]), "epochs that all of them have"
    columns = [[0.1, 0.3, 0.2], [0.2, 0.2, 0.5]]
    assert found.y == pytest.approx([statistics.mean(column) for column in columns])
    assert found.spread == pytest.approx([statistics.stdev(column) for column in columns])
    assert mean_curve("one", seeds[:1]).spread == ()


def test_a_thinned_curve_keeps_its_end() -> None:
    whole = Curve("a", list(range(1001)), [float(i) for i in range(1001)], [0.0] * 1001)
    short = thinned(whole, 100)
    assert len(short.x) == len(short.y) == len(short.spread) <= 101
    assert (short.x[0], short.x[-1]) == (0, 1000)
    assert thinned(whole, 1001) is whole
