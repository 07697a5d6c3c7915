"""Which stages belong together."""

from __future__ import annotations

import re

import pytest

from distillctl import RunError, pair_stages, require_positions
from distillctl.testing import make_side

MAP = (4, 2, 2)


def side(count: int, *more: str):
    return make_side(f"net{count}", {**{f"stage{k}": MAP for k in range(1, count + 1)}, **dict.fromkeys(more, MAP)})


THREE, FOUR, NONE = side(3, "stem"), side(4), make_side("bare", {})
ALL = ["stages"]


def pairs(student, teacher, ours, theirs):
    return pair_stages("at", student, teacher, ours, theirs)


def test_the_deepest_belong_together():
    assert pairs(THREE, FOUR, ALL, ALL) == (("stage1", "stage2"), ("stage2", "stage3"), ("stage3", "stage4"))
    assert pairs(FOUR, THREE, ALL, ["stages:pre"]) == (("stage2", "stage1:pre"), ("stage3", "stage2:pre"), ("stage4", "stage3:pre"))


def test_names_on_both_sides_keep_their_order():
    assert pairs(THREE, FOUR, ["stage3", "stage1"], ["stage2", "layer.7"]) == (("stage3", "stage2"), ("stage1", "layer.7"))


@pytest.mark.parametrize("names", [["stage1", "stage2"], ["stage1"], ["stage3", "stage1"]])
def test_d05_names_on_one_side_meet_the_same_names(names):
    """Counted from the deepest, stage1 alone would meet the deepest stage of the other side."""
    assert pairs(FOUR, THREE, names, ALL) == tuple((name, name) for name in names)
    assert pairs(FOUR, THREE, ALL, names) == tuple((name, name) for name in names)
    assert pairs(FOUR, THREE, names, ["stages:pre"]) == tuple((name, f"{name}:pre") for name in names)


@pytest.mark.parametrize("name", ["stem", "stages.0", "stage4"])
def test_a_name_that_the_other_side_does_not_have(name):
    with pytest.raises(RunError, match=f"`at` pairs `{name}` with the stage of the same name, and `net3` has `stage1`, `stage2`, `stage3`"):
        pairs(FOUR, THREE, [name], ALL)


def test_unequal_numbers_of_names():
    with pytest.raises(RunError, match=r"`at` pairs 2 stages of `net3` \(stage1, stage2\) with 1 of `net4` \(stage1\)"):
        pairs(THREE, FOUR, ["stage1", "stage2"], ["stage1"])


def test_no_stages():
    for ours, theirs in ((NONE, THREE), (THREE, NONE)):
        with pytest.raises(RunError, match="`at` compares stages, but `bare` declares none"):
            pairs(ours, theirs, ALL, ALL)


def positions(ours, theirs):
    """One pair of stages for each pair of shapes."""
    names = [f"stage{k}" for k in range(1, len(ours) + 1)]
    sides = [make_side("net", dict(zip(names, shapes, strict=True))) for shapes in (ours, theirs)]
    require_positions("at", *sides, list(zip(names, names, strict=True)), "compares positions, but only one is left")


def test_one_position_in_each_pair():
    message = "`at` compares positions, but only one is left in each pair of stages: `stage1` (4, 1, 3) with `stage1` (8, 2, 1)"
    with pytest.raises(RunError, match=re.escape(message)):
        positions([(4, 1, 3)], [(8, 2, 1)])
    positions([(4, 1, 3), (4, 2, 1)], [(8, 2, 1), (8, 2, 1)])


def test_positions_of_maps_alone():
    with pytest.raises(RunError, match=r"`at`.*stage1"):
        positions([(4,)], [(8, 2, 2)])
