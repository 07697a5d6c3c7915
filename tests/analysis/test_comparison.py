"""Groups, pairs over seeds, controls and verdicts, on runs that are written down here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from distillctl.analysis.comparison import Comparison, compare_runs
from distillctl.analysis.groups import Figure, Group, seeds_text, short
from distillctl.analysis.records import RunRecord
from distillctl.analysis.statistics import McNemar
from distillctl.errors import ProfileError

PRECISION = "train.precision"
CONTROL = (0.90, 0.91, 0.89)
BETTER = (0.92, 0.925, 0.912)


def run(
    method: str, seed: int, top1: float, *, place: str = "", train: dict[str, Any] | None = None, options: dict[str, Any] | None = None
) -> RunRecord:
    resolved: dict[str, Any] = {"seed": seed, "student": {"name": "resnet8"}, "train": {"epochs": 3, "precision": "fp32", **(train or {})}}
    resolved["method"] = {"name": method, "weight": 1.0, **(options or {})}
    if method != "none":
        resolved["teacher"] = {"profile": "big.toml"}
    figures = {"epoch": 2, "top1": top1, "loss": 1 - top1}
    info = {"state": "finished", "method": method, "result": {"split": "test", "chosen_on": "val", "best": figures, "last": figures}}
    return RunRecord(Path("runs", place or f"{method}-{seed}-{top1}-{train}-{options}"), info, resolved)


def of(method: str, figures: Sequence[float], **more: Any) -> list[RunRecord]:
    return [run(method, seed, figure, **more) for seed, figure in enumerate(figures)]


def figure(metric: str = "top1") -> Figure:
    return Figure(metric, metric, metric != "loss", "test", "best", lambda run: run.figures("test").get(metric))


def compared(runs: Sequence[RunRecord], metric: str = "top1", **more: Any) -> Comparison:
    return compare_runs(runs, figure(metric), **more)


def named(comparison: Comparison, name: str) -> Group:
    return next(group for group in comparison.groups if group.name == name)


def test_the_difference_to_the_control_is_paired_over_seeds() -> None:
    found = compared([*of("none", CONTROL), *of("kd", BETTER)])
    assert [group.name for group in found.groups] == ["none", "kd"]
    assert found.by == ["method"]
    assert found.groups[0].against is None
    assert found.groups[0].mean == pytest.approx(0.9)
    assert found.groups[0].sd == pytest.approx(0.01)
    one = found.groups[1].against
    assert one is not None
    assert one.t is not None
    assert (one.control, len(one.pairs), one.verdict) == ("none", 3, "better")
    theirs = stats.ttest_rel(BETTER, CONTROL)
    assert (one.t.p, one.adjusted, one.mean) == pytest.approx((theirs.pvalue, theirs.pvalue, sum(BETTER) / 3 - 0.9))
    assert one.wilcoxon is not None
    assert one.wilcoxon.p == 0.25
    assert found.differing == []


def test_lower_is_better_for_a_loss() -> None:
    found = compared([*of("none", CONTROL), *of("kd", BETTER)], "loss")
    one = named(found, "kd").against
    assert one is not None
    assert (one.mean < 0, one.verdict) == (True, "better")
    worse = named(compared([*of("none", BETTER), *of("kd", CONTROL)], "loss"), "kd").against
    assert worse is not None
    assert worse.verdict == "worse"


@pytest.mark.parametrize("more", [{}, {"control": "runs/a"}, {"by": ["method"]}], ids=str)
def test_two_copies_of_a_run_are_never_better(more: dict[str, Any]) -> None:
    found = compared([run("kd", 0, 0.9, place="a"), run("kd", 0, 0.9, place="b")], **more)
    (group,) = found.groups
    assert group.seeds == {0: 0.9}
    assert len(group.runs) == 1
    assert group.against is None
    assert found.notes == ["`kd` has 2 runs, of which 1 repeats the seed and the results of another: left out"]


def test_copies_of_every_seed_make_no_difference_more_certain() -> None:
    runs = [*of("none", CONTROL), *of("kd", BETTER)]
    copies = [RunRecord(one.path.with_name(f"{one.path.name}-2"), one.info, one.resolved) for one in runs]
    once, twice = compared(runs), compared([*runs, *copies])
    assert [group.seeds for group in once.groups] == [group.seeds for group in twice.groups]
    assert [group.against for group in once.groups] == [group.against for group in twice.groups]


def test_groups_with_the_same_figures_do_not_differ() -> None:
    one = named(compared([*of("none", CONTROL), *of("kd", CONTROL)]), "kd").against
    assert one is not None
    assert (one.mean, one.t, one.wilcoxon, one.verdict) == (0, None, None, "")


def test_equal_differences_are_not_certain() -> None:
    """Three images of a hundred more in every seed: rounding aside there is no spread from which noise could be told."""
    one = named(compared([*of("none", CONTROL), *of("kd", [figure + 0.03 for figure in CONTROL])]), "kd").against
    assert one is not None
    assert (one.t, one.adjusted, one.verdict) == (None, None, "")
    assert one.mean == pytest.approx(0.03)
    assert one.wilcoxon is not None
    assert one.wilcoxon.statistic == 0


def test_runs_of_one_seed_with_other_results_count_as_one() -> None:
    found = compared([run("kd", 0, 0.9, place="a"), run("kd", 0, 0.8, place="b"), run("kd", 1, 0.7)])
    assert found.groups[0].seeds == pytest.approx({0: 0.85, 1: 0.7})
    assert found.notes == ["`kd` has up to 2 runs of one seed with different results (of seed 0), which count as one by their mean"]


def test_seeds_that_only_one_side_has_are_told() -> None:
    found = compared([*of("none", CONTROL[:2]), *of("kd", BETTER), run("dkd", 7, 0.95)])
    one = named(found, "kd").against
    assert one is not None
    assert [pair.seed for pair in one.pairs] == [0, 1]
    assert len(named(found, "kd").seeds) == 3
    assert named(found, "dkd").against is None
    assert found.notes == [
        "`dkd`: seed 7; `none`: seeds 0, 1: there is no pair, and no difference",
        "`kd`: seeds 0–2; `none`: seeds 0, 1: pairs are of seeds 0, 1",
    ]


@pytest.mark.parametrize(
    ("key", "word"),
    [("method", "method"), ("method.0.temperature", "temperature"), ("student.name", "student"), ("package torch", "torch")],
    ids=str,
)
def test_keys_in_short(key: str, word: str) -> None:
    assert short(key) == word


@pytest.mark.parametrize(
    ("seeds", "text"), [([3], "seed 3"), ([1, 0], "seeds 0, 1"), ([0, 1, 2, 3, 4, 7], "seeds 0–4, 7"), ([9, 2], "seeds 2, 9")], ids=str
)
def test_seeds_in_words(seeds: list[int], text: str) -> None:
    assert seeds_text(seeds) == text


def test_runs_that_differ_in_precision_have_no_control_unless_one_is_named() -> None:
    runs = [*of("none", CONTROL), *of("kd", BETTER, train={"precision": "bf16"})]
    found = compared(runs)
    assert [group.against for group in found.groups] == [None, None]
    assert [one.key for one in found.differing] == [PRECISION]
    values = {value: {run.method for run in having} for value, having in found.differing[0].values.items()}
    assert values == {"fp32": {"none"}, "bf16": {"kd"}}
    assert found.notes == [
        "no control for `kd`: the runs from labels alone differ from it in `train.precision`; "
        "`--control none` compares with one all the same"
    ]
    for more in ({"control": "none"}, {"by": ["method"]}):
        told = compared(runs, **more)
        assert named(told, "kd").against is not None
        assert [one.key for one in told.differing] == [PRECISION]
        assert told.notes == ["`kd` and `none` differ in `train.precision`, too, which may be why their figures do"]


def test_each_setting_has_its_own_control() -> None:
    half = {"precision": "bf16"}
    runs = [*of("none", CONTROL), *of("kd", BETTER), *of("none", BETTER, train=half), *of("kd", CONTROL, train=half)]
    found = compared(runs)
    assert found.by == ["method", PRECISION]
    told = {group.name: group.against and (group.against.control, group.against.verdict) for group in found.groups}
    assert told == {
        "none, precision bf16": None,
        "none, precision fp32": None,
        "kd, precision bf16": ("none, precision bf16", "worse"),
        "kd, precision fp32": ("none, precision fp32", "better"),
    }


def test_options_of_a_method_make_groups_and_no_difference_of_their_own() -> None:
    runs = [*of("none", CONTROL)]
    for temperature in (16.0, 4.0):
        runs += of("kd", BETTER, options={"temperature": temperature})
    found = compared(runs)
    assert [group.name for group in found.groups] == ["none", "kd, temperature 4", "kd, temperature 16"]
    assert found.by == ["method", "method.temperature"]
    assert [group.against is not None for group in found.groups] == [False, True, True]
    assert found.differing == []


def test_by_an_option_of_a_method_the_control_is_called_by_its_method() -> None:
    runs = [*of("none", CONTROL), *of("kd", BETTER, options={"temperature": 4.0})]
    found = compared(runs, by=["temperature"])
    assert [(group.name, group.against and group.against.control) for group in found.groups] == [("none", None), ("temperature 4", "none")]
    assert [one.key for one in found.differing] == ["method"]
    assert found.notes == [], "that the methods differ is what is compared"
    mixed = compared([*runs, *of("dkd", BETTER)], by=["temperature"])
    assert [group.name for group in mixed.groups] == ["temperature 4", "others"]


def test_as_few_keys_as_tell_the_groups_apart() -> None:
    """Two settings that always change together are one column, and the other is named."""
    found = compared([*of("kd", CONTROL), *of("kd", BETTER, train={"epochs": 9, "precision": "bf16"})])
    assert found.by == ["train.epochs"]
    assert [one.key for one in found.differing] == [PRECISION]
    assert "no control for `epochs 3`, `epochs 9`: no run has the method `none`; `--control NAME` chooses a baseline" in found.notes


def test_p_values_are_adjusted_for_all_comparisons() -> None:
    runs = [*of("none", CONTROL), *of("kd", BETTER), *of("dkd", (0.905, 0.913, 0.896)), *of("at", (0.90, 0.93, 0.88))]
    found = compared(runs)
    raw = {group.name: group.against.t.p for group in found.groups if group.against is not None and group.against.t is not None}
    adjusted = {group.name: group.against.adjusted for group in found.groups if group.against is not None}
    first, second, third = sorted(raw, key=raw.__getitem__)
    assert adjusted[first] == pytest.approx(3 * raw[first])
    assert adjusted[second] == pytest.approx(max(3 * raw[first], 2 * raw[second]))
    assert adjusted[third] == pytest.approx(max(2 * raw[second], raw[third]))
    alone = compared(runs[:6])
    assert named(alone, "kd").against.adjusted == pytest.approx(raw["kd"])  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["kd, temperature 4", "4", "runs/here", "here"], ids=str)
def test_a_baseline_by_its_name_value_or_run(name: str) -> None:
    runs = [*of("none", CONTROL), run("kd", 0, 0.95, place="here", options={"temperature": 4.0})]
    runs += [run("kd", 0, 0.96, options={"temperature": 8.0})]
    found = compared(runs, control=name)
    assert [group.against and group.against.control for group in found.groups] == ["kd, temperature 4", None, "kd, temperature 4"]


def test_a_baseline_that_is_not_there_or_not_one() -> None:
    runs = [*of("kd", CONTROL, options={"temperature": 4.0}), *of("kd", BETTER, options={"temperature": 8.0}), *of("none", CONTROL)]
    with pytest.raises(ProfileError, match="`kd` may mean `kd, temperature 4`, `kd, temperature 8`"):
        compared(runs, control="kd")
    with pytest.raises(ProfileError, match="no group and no compared run is called `nonne`") as caught:
        compared(runs, control="nonne")
    assert caught.value.problems[0].hint == "did you mean `none`?"


def test_single_runs_are_compared_by_their_answers() -> None:
    asked: list[tuple[str, str]] = []

    def answers(one: RunRecord, other: RunRecord) -> McNemar | str:
        asked.append((one.method, other.method))
        return McNemar(1, 9, 0.021) if other.method == "kd" else "the two runs answered different images"

    found = compared([run("none", 0, 0.9), run("kd", 0, 0.95), run("dkd", 0, 0.94)], answers=answers)
    assert asked == [("none", "dkd"), ("none", "kd")], "the control comes first"
    one = named(found, "kd").against
    assert one is not None
    assert (one.t, one.wilcoxon, one.mcnemar, one.adjusted, one.verdict) == (None, None, McNemar(1, 9, 0.021), 0.021, "")
    assert found.notes == ["no McNemar's test of `dkd`: the two runs answered different images"]
    asked.clear()
    compared([*of("none", CONTROL), *of("kd", BETTER)], answers=answers)
    assert not asked, "several seeds say more than the answers of one"


FIGURES = st.integers(0, 60).map(lambda number: number / 64)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["none", "kd", "dkd"]), st.integers(0, 3), FIGURES), min_size=1, max_size=12), st.randoms())
def test_the_order_of_runs_changes_nothing(drawn: list[tuple[str, int, float]], random: Any) -> None:
    runs = [run(*one, place=str(number)) for number, one in enumerate(drawn)]
    shuffled = list(runs)
    random.shuffle(shuffled)
    one, other = compared(runs), compared(shuffled)
    assert [(g.name, g.seeds) for g in one.groups] == [(g.name, pytest.approx(dict(g.seeds))) for g in other.groups]
    assert [g.against and (g.against.verdict, len(g.against.pairs)) for g in one.groups] == [
        g.against and (g.against.verdict, len(g.against.pairs)) for g in other.groups
    ]
