"""The report of several runs: groups with mean and standard deviation, curves together, a heat map."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from distillctl.analysis.records import RunRecord
from distillctl.pages.runs_page import runs_page

Make = Callable[..., Path]


def words(page: str) -> str:
    return " ".join(re.sub("<[^>]*>", " ", re.sub(r"<(script|style).*?</\1>", "", page.split("<body>")[1], flags=re.DOTALL)).split())


@pytest.fixture(scope="module")
def runs(make_run: Make, tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    """Two temperatures of student and teacher, two seeds each, and two controls."""
    folder = tmp_path_factory.mktemp("runs")
    made = [
        make_run(folder / f"{t}-{u}-{s}", top1=0.5 + t / 100 + u / 50 + s / 10, seed=s, answers=False, temperature=t, other=u)
        for t in (1.0, 4.0)
        for u in (1.0, 4.0)
        for s in (0, 1)
    ]
    made += [make_run(folder / f"none-{s}", top1=0.5 + s / 10, seed=s, method="none", answers=False) for s in (0, 1)]
    return [RunRecord.read(path) for path in made]


def test_groups_with_mean_and_spread(runs: list[RunRecord]) -> None:
    told = words(runs_page("all", runs))
    best = [0.5 + 0.04 + 0.08 + s / 10 for s in (0, 1)]
    spread = f"{statistics.mean(best):.2%}".removesuffix("%") + f" ± {statistics.stdev(best):.2%}"
    assert "10 runs in 5 groups that differ in their seed alone; 10 finished." in told
    assert f"gain kd, temperature 4, other 4 2 of 2 {spread} 0.9000 ± 0.0000 +12.00 points kd," in told, "the best one first"
    assert "none 2 of 2 55.00 ± 7.07% 0.9000 ± 0.0000 Mean ±" in told


def test_two_settings_are_a_heat_map(runs: list[RunRecord]) -> None:
    page = runs_page("all", runs)
    assert "kd: mean top-1 temperature ↓ other → 1 4 1 58.00% 64.00% 4 61.00% 67.00%" in words(page)
    assert re.findall(r'--share:(\d+)%">', page) == ["8", "49", "29", "70"]


def test_their_curves_together(runs: list[RunRecord]) -> None:
    page = runs_page("all", runs)
    found = {data["title"]: data for data in map(json.loads, re.findall(r'<script type="application/json">(.*?)</script>', page))}
    lines = found["top-1, evaluated"]["lines"]
    assert [line["name"] for line in lines][-1] == "none"
    assert all(len(line["x"]) == 3 for line in lines)
    assert lines[-1]["y"][-1] == pytest.approx(0.55)
    assert lines[-1]["spread"][-1] == pytest.approx(statistics.stdev([0.5, 0.6]), rel=1e-5)


def test_a_group_has_one_colour_in_all_charts(make_run: Make, tmp_path: Path) -> None:
    """The control is better than one group, and has no line in the chart of agreement with the teacher."""
    made = [
        make_run(tmp_path / f"{method}-{t}", top1=top1, seed=0, answers=False, method=method, temperature=t)
        for method, t, top1 in (("kd", 1.0, 0.9), ("none", 1.0, 0.7), ("kd", 4.0, 0.5))
    ]
    page = runs_page("all", [RunRecord.read(path) for path in made])
    colours: dict[str, set[int]] = {}
    for data in map(json.loads, re.findall(r'<script type="application/json">(.*?)</script>', page)):
        for line in data["lines"]:
            colours.setdefault(line["name"], set()).add(line["colour"])
    assert len(colours) == 3
    assert sorted(colours.values(), key=min) == [{0}, {1}, {2}]


def test_damaged_and_unfinished_runs_are_told(make_run: Make, tmp_path: Path) -> None:
    going = RunRecord.read(make_run(tmp_path / "going", finished=False, seed=1))
    done = RunRecord.read(make_run(tmp_path / "done"))
    told = words(runs_page("two", [going, done], ["`bad<b>` is left out: damaged"]))
    assert "`bad&lt;b&gt;` is left out: damaged" in told
    assert "kd 1 of 2 75.00% 0.9000" in told
    assert "going kd 1 3 of 3 epochs" in told


def test_groups_of_another_figure_are_left_out(make_run: Make, tmp_path: Path) -> None:
    from distillctl.rundir.directory import RunDirectory

    runs = [make_run(tmp_path / name, method=name, answers=False) for name in ("kd", "none")]
    RunDirectory(runs[1]).update(shown={"metric": "map", "names": {"map": "AP"}, "percent": ["map"]})
    told = words(runs_page("two", [RunRecord.read(path) for path in runs]))
    assert "1 group is left out: it is not measured by top-1." in told


def test_names_are_text(make_run: Make, tmp_path: Path) -> None:
    runs = [RunRecord.read(make_run(tmp_path / f"{i}<script>", answers=False, how=f"<script>{i}")) for i in (1, 2)]
    page = runs_page("<script>", runs)
    assert page.count("<script>") == 1
