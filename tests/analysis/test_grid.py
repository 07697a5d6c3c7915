"""Runs by groups that differ in their seed alone, and two settings as a grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from distillctl.analysis.grid import Group, best_first, group_panels, groups, heat_maps, mean_and_spread, with_curves
from distillctl.analysis.records import RunRecord

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def found(make_run: Make, tmp_path_factory: pytest.TempPathFactory) -> list[Group]:
    """Three temperatures of student and teacher, but for one cell, two seeds each, and a control."""
    tmp_path = tmp_path_factory.mktemp("grid")
    made = [
        make_run(tmp_path / f"{t}-{u}-{seed}", top1=0.5 + t / 100 + u / 1000 + seed / 10, seed=seed, answers=False, temperature=t, other=u)
        for t in (1.0, 2.0, 4.0)
        for u in (2.0, 8.0)
        for seed in (0, 1)
        if (t, u) != (4.0, 8.0)
    ]
    made.append(make_run(tmp_path / "none", method="none", answers=False))
    return groups([RunRecord.read(path) for path in made])


def test_groups_are_named_by_what_differs(found: list[Group]) -> None:
    names = [f"kd, temperature {t}, other {u}" for t in (1, 2, 4) for u in (2, 8)][:-1]
    assert [group.name for group in found] == [*names, "none"], "the control last"
    assert [len(group.runs) for group in found] == [2] * 5 + [1]
    assert found[0].figures("top1") == pytest.approx([0.512, 0.612])


def test_two_numeric_settings_are_a_grid(found: list[Group]) -> None:
    (heat,) = heat_maps(found, "top1")
    assert (heat.method, heat.row, heat.column) == ("kd", "method.temperature", "method.other")
    assert (heat.rows, heat.columns) == ([1, 2, 4], [2, 8])
    assert [value for line in heat.cells for value in line][:5] == pytest.approx([0.562, 0.568, 0.572, 0.578, 0.592])
    assert math.isnan(heat.cells[2][1])
    assert heat_maps([group for group in found if group.values.get("method.other") != 8], "top1") == [], "one setting is not a grid"


def test_a_word_is_not_a_number(make_run: Make, tmp_path: Path) -> None:
    cells = [(1.0, "a"), (2.0, "a"), (1.0, "b"), (2.0, "b")]
    made = [make_run(tmp_path / f"{t}{w}", answers=False, temperature=t, how=w) for t, w in cells]
    assert heat_maps(groups([RunRecord.read(path) for path in made]), "top1") == []


def test_the_best_group_first_and_its_curves(found: list[Group], make_run: Make, tmp_path: Path) -> None:
    unfinished = RunRecord.read(make_run(tmp_path / "going", finished=False, epochs=0))
    ordered = best_first([Group("going", "kd", {}, [unfinished]), *found], "top1")
    assert [group.name for group in ordered][:2] == ["none", "kd, temperature 4, other 2"]
    assert ordered[-1].name == "going"
    drawn = with_curves(ordered, 3)
    assert len(drawn) == 3
    panels = {panel.title: panel for panel in group_panels(drawn, found[0].runs[0])}
    assert list(panels) == ["top-1, evaluated", "loss, evaluated", "Loss in training", "Agreement with the teacher", "Learning rate"]
    assert len(panels["top-1, evaluated"].curves) == 3
    assert len(panels["Agreement with the teacher"].curves) == 2, "the control has no teacher"
    curve = panels["top-1, evaluated"].curves[1]
    assert (curve.y[-1], curve.spread[-1]) == pytest.approx(mean_and_spread([0.542, 0.642]))


def test_the_standard_deviation_is_that_of_a_sample() -> None:
    assert mean_and_spread([1.0, 2.0, 6.0]) == pytest.approx((3.0, math.sqrt(7.0)))
    assert math.isnan(mean_and_spread([1.0])[1])
