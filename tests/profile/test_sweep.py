"""What a sweep is made of: grids, ranges, draws and seeds, from options and from a table [sweep]."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from distillctl.errors import ProfileError
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load
from distillctl.profile.schema import SweepTable
from distillctl.profile.sweep import Range, combinations, read_seeds, samples, settle

PROFILE = """
[dataset]
name = "digits"
[student]
name = "resnet8"
[train]
epochs = 2
"""


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("method.temperature=1,2.5", (1, 2.5)),
        ("method=kd,dkd", ("kd", "dkd")),
        ("train.precision=bf16", ("bf16",)),
        ("train.deterministic=true,false", (True, False)),
        ("schedule.milestones=[0.5,0.8],[0.6]", ([0.5, 0.8], [0.6])),
        ("""dataset.root="a,b",'c,d'""", ("a,b", "c,d")),
        ("method.temperature=1..16", Range(1, 16)),
        ("optimizer.lr=1e-3..1 log", Range(0.001, 1, log=True)),
    ],
)
def test_values_are_read_as_set_reads_them(text: str, values: Any) -> None:
    sweep = settle(SweepTable(), grid=[text], random=1)
    assert list(sweep.grid.values()) == [values]
    assert list(sweep.grid) == [text.partition("=")[0]]


def test_a_table_means_what_options_mean() -> None:
    grid = {"method": ["kd", "dkd"], "method.temperature": [1, 2], "optimizer": {"lr": "0.01..1 log"}}
    table = SweepTable(grid=grid, seeds=[3, 4], control=True, jobs=2, random=5)
    options = ["method=kd,dkd", "method.temperature=1,2", "optimizer.lr=0.01..1 log"]
    assert settle(table) == settle(SweepTable(), grid=options, seeds="3,4", control=True, jobs=2, random=5)


def test_the_command_line_wins() -> None:
    table = SweepTable(grid={"train.epochs": [1, 2]}, seeds=[3, 4], control=True, jobs=2, random=5)
    sweep = settle(table, grid=["optimizer.lr=1..2"], seeds="7", control=False, jobs=1, optimize="top1", trials=9)
    assert (dict(sweep.grid), sweep.seeds, sweep.control, sweep.jobs) == ({"optimizer.lr": Range(1, 2)}, (7,), False, 1)
    assert (sweep.random, sweep.optimize, sweep.trials) == (0, "top1", 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": ["train.epochs"]}, "`train.epochs` is not a dotted key with values"),
        ({"grid": ["train.epochs="]}, "is not a dotted key with values"),
        ({"grid": ["train..epochs=1"]}, "is not a dotted key with values"),
        ({"grid": ["seed=1,2"]}, "`--seeds 0,1,2` names seeds"),
        ({"grid": ["sweep.jobs=1,2"]}, "is not one of the grid"),
        ({"grid": ["train.epochs=1,,2"]}, "needs a list of values"),
        ({"grid": ["train.epochs=1,2,1"]}, "has the value `1` twice"),
        ({"grid": ["train.epochs=1", "train.epochs=2"]}, "`train.epochs` is given twice"),
        ({"grid": ["method=1,2"]}, "`method` takes names"),
        ({"grid": ["train.epochs=1..16"]}, "is a range, and a grid takes values"),
        ({"grid": ["train.epochs=16..1"], "random": 2}, "ends before it begins"),
        ({"grid": ["optimizer.lr=0..1 log"], "random": 2}, "it must begin above 0"),
        ({"grid": ["optimizer.lr=a..b"], "random": 2}, "needs a list of values, or a range"),
        ({"grid": ["train.epochs=1,2"], "random": 2, "trials": 3}, "`trials` has no effect without `optimize`"),
        ({"grid": ["train.epochs=1,2"], "optimize": "top1"}, "how many combinations it may try"),
        ({"random": 2}, "there is nothing to draw from"),
        ({"seeds": "1,1"}, "is not a list of different whole numbers"),
        ({"seeds": "1,-1"}, "is not a list of different whole numbers"),
        ({"seeds": "4294967296"}, "is not a list of different whole numbers"),
    ],
)
def test_what_makes_no_sweep_is_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ProfileError) as raised:
        settle(SweepTable(), **options)
    assert message in str(raised.value)


def test_a_table_that_draws_and_searches_is_told() -> None:
    with pytest.raises(ProfileError, match="does one of both"):
        settle(SweepTable(grid={"train.epochs": [1, 2]}, random=2, optimize="top1", trials=2))


def test_a_grid_that_is_a_slip_of_the_pen_is_told() -> None:
    numbers = ",".join(map(str, range(101)))
    with pytest.raises(ProfileError, match="the grid has 10,201 combinations"):
        settle(SweepTable(), grid=[f"train.epochs={numbers}", f"train.batch_size={numbers}"])


def test_seeds_are_read() -> None:
    assert read_seeds("2, 0,1") == (2, 0, 1)


def test_a_grid_is_the_product_in_the_order_in_which_it_is_written() -> None:
    sweep = settle(SweepTable(), grid=["b=1,2", "a=x,y"])
    assert [tuple(values.values()) for values in combinations(sweep, 0)] == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]
    assert combinations(settle(SweepTable(), seeds="1,2"), 0) == [{}]


def test_draws_are_those_of_the_seed_and_more_of_them_begin_with_the_same() -> None:
    grid = ["a=1,2,3,4", "b=1..9", "c=0.01..100 log"]
    few, many = (combinations(settle(SweepTable(), grid=grid, random=count), 5) for count in (6, 40))
    assert many[:6] == few
    assert len({repr(values) for values in many}) == 40
    assert combinations(settle(SweepTable(), grid=grid, random=6), 6) != few
    assert {values["a"] for values in many} == {1, 2, 3, 4}
    assert {type(values["b"]) for values in many} == {int}
    assert all(1 <= values["b"] <= 9 and 0.01 <= values["c"] <= 100 for values in many)
    assert 8 < sum(values["c"] < 1 for values in many) < 32, "half of the logarithms lie below"
    assert all(len(f"{values['c']:.12g}".replace("0.", "").lstrip("0")) <= 5 for values in many), "four digits"


def test_more_draws_than_there_are_combinations_are_all_of_them() -> None:
    grid = ["a=1,2", "b=1,2"]
    assert len(combinations(settle(SweepTable(), grid=grid, random=3), 0)) == 3
    assert combinations(settle(SweepTable(), grid=grid, random=9), 0) == combinations(settle(SweepTable(), grid=grid), 0)


def test_a_range_reaches_both_its_ends() -> None:
    below = math.nextafter(1.0, 0.0)
    for log in (False, True):
        assert (Range(1, 3, log).at(0.0), Range(1, 3, log).at(below)) == (1, 3)
        assert (Range(0.5, 8.0, log).at(0.0), Range(0.5, 8.0, log).at(below)) == (0.5, 8.0)
    assert Range(1, 100, log=True).at(0.5) == 10
    assert Range(1.0, 100.0, log=True).at(0.5) == 10.0
    assert {Range(1, 3).at(part / 30) for part in range(30)} == {1, 2, 3}


def test_a_search_is_checked_with_every_value_and_both_ends() -> None:
    sweep = settle(SweepTable(), grid=["a=1,2,3", "b=4..9"], optimize="top1", trials=5)
    seen = list(samples(sweep.grid))
    assert {values["a"] for values in seen} == {1, 2, 3}
    assert {values["b"] for values in seen} == {4, 9}


def test_a_table_changes_neither_digest_nor_resolved_profile(tmp_path: Path) -> None:
    plain, swept = tmp_path / "a.toml", tmp_path / "b.toml"
    plain.write_text(PROFILE)
    swept.write_text(PROFILE + '[sweep]\nseeds = [0, 1]\n[sweep.grid]\n"optimizer.lr" = [0.1, 0.2]\nmethod.temperature = [1]\n')
    one, other = (load(path, registry=Registry.load()) for path in (plain, swept))
    assert (one.digest, one.resolved) == (other.digest, other.resolved)
    assert other.sweep.seeds == [0, 1]
    assert list(settle(other.sweep).grid) == ["optimizer.lr", "method.temperature"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("sweep = 3", "`sweep` must be a table"),
        ("[sweep]\nseed = [1]", "did you mean `seeds`"),
        ("[sweep]\nseeds = [1, 1]", "a seed is named twice"),
        ("[sweep]\njobs = 0", "at least 1"),
        ("seeds = [1]", "`seeds` belongs in [sweep]"),
    ],
)
def test_a_wrong_table_is_told_where_the_profile_is_read(tmp_path: Path, lines: str, message: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(f"{lines}\n{PROFILE}")
    with pytest.raises(ProfileError) as raised:
        load(path, registry=Registry.load())
    assert message in str(raised.value)
