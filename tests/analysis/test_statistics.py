"""The statistics equal SciPy's, cases that were computed by hand, and the definitions written out as loops."""

from __future__ import annotations

import math
import sys
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from distillctl.analysis.statistics import McNemar, holm, mcnemar, mcnemar_of, mean, paired_t, sample_sd, wilcoxon
from distillctl.errors import MachineError

DIFFERENCES = [
    [0.01, 0.03],
    [0.012, 0.004, -0.002],
    [1.5, 2.5, 2.0, 3.0, 1.0],
    [-0.4, -0.3, -0.7, 0.1, -0.2, -0.9, 0.05],
]


def test_means_and_spreads_by_hand() -> None:
    assert mean([1.0, 2.0, 6.0]) == 3.0
    assert sample_sd([1.0, 2.0, 6.0]) == pytest.approx(math.sqrt((4 + 1 + 9) / 2))  # n - 1 below
    assert sample_sd([1.0]) is None
    with pytest.raises(ValueError, match="nothing"):
        mean([])


@pytest.mark.parametrize("differences", DIFFERENCES, ids=len)
def test_the_paired_t_test_is_scipys(differences: list[float]) -> None:
    one = [0.5 + d for d in differences]
    other = [0.5] * len(differences)
    theirs = stats.ttest_rel(one, other)
    interval = theirs.confidence_interval(0.95)
    mine = paired_t([a - b for a, b in zip(one, other, strict=True)])
    assert mine is not None
    assert mine.n == len(differences)
    assert (mine.statistic, mine.p, mine.low, mine.high) == pytest.approx((theirs.statistic, theirs.pvalue, interval.low, interval.high))


def test_the_paired_t_test_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, sd 1, t = 2√3; with 2 degrees of freedom P(|T| ≥ t) = 1 − t / √(t² + 2)."""
    found = paired_t([1.0, 2.0, 3.0])
    assert found is not None
    t = 2 * math.sqrt(3)
    assert (found.mean, found.sd, found.statistic) == pytest.approx((2, 1, t))
    assert found.p == pytest.approx(1 - t / math.sqrt(t * t + 2))
    half = 4.302652729696142 / math.sqrt(3)  # the table's t(0.975) of 2 degrees of freedom
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))


@pytest.mark.parametrize("differences", [[], [0.3], [0.0, 0.0], [0.1, 0.1, 0.1], [0.3 - 0.2, 0.1, 0.4 - 0.3]], ids=str)
def test_differences_without_spread_say_nothing(differences: list[float]) -> None:
    """The last are equal but for rounding, and t would be beyond all bounds."""
    assert paired_t(differences) is None


def test_scipy_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    assert paired_t([0.1]) is None, "where nothing is computed, nothing is missing"
    with pytest.raises(MachineError, match="SciPy") as caught:
        paired_t([0.1, 0.2])
    assert "pip install 'distillctl[analysis]'" in caught.value.problems[0].hint


@pytest.mark.parametrize("differences", DIFFERENCES, ids=len)
def test_wilcoxon_is_scipys(differences: list[float]) -> None:
    theirs = stats.wilcoxon(differences, method="exact")
    mine = wilcoxon(differences)
    assert mine is not None
    assert (mine.statistic, mine.p) == pytest.approx((theirs.statistic, theirs.pvalue))


def test_wilcoxon_of_three_seeds_is_at_least_a_quarter() -> None:
    found = wilcoxon([0.1, 0.2, 0.3])
    assert found is not None
    assert (found.n, found.statistic, found.p, found.smallest) == (3, 0, 0.25, 0.25)
    assert [wilcoxon([1.0] * n).smallest for n in (1, 2, 5, 6)] == [1.0, 0.5, 0.0625, 0.03125]  # type: ignore[union-attr]


def _all_signs(differences: list[float]) -> tuple[float, float]:
    """Wilcoxon's W and p, with each of the 2ⁿ signs gone through."""
    sizes = [abs(d) for d in differences if d]
    ranks = [sum(s < one for s in sizes) + (sum(s == one for s in sizes) + 1) / 2 for one in sizes]
    observed = sum(rank for rank, d in zip(ranks, (d for d in differences if d), strict=True) if d > 0)
    smaller = min(observed, sum(ranks) - observed)
    sums = [sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign) for signs in product((False, True), repeat=len(ranks))]
    return smaller, min(1.0, 2 * sum(one <= smaller for one in sums) / len(sums))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-4, 4), max_size=8))
def test_wilcoxon_counts_all_signs(steps: list[int]) -> None:
    """With equal ranks and with zeros, in any order."""
    differences = [0.25 * step for step in steps]
    mine = wilcoxon(differences)
    if not any(steps):
        assert mine is None
        return
    assert mine is not None
    assert (mine.statistic, mine.p) == pytest.approx(_all_signs(differences))
    assert wilcoxon(differences[::-1]) == mine
    mirrored = wilcoxon([-d for d in differences])
    assert mirrored == mine


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (0, 6), (10, 2), (7, 7), (120, 95)])
def test_mcnemar_is_the_binomial_test(b: int, c: int) -> None:
    expected = stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar_of(b, c).p == pytest.approx(expected)


def test_mcnemar_by_hand() -> None:
    """Six images that one alone has right: 2 / 2⁶."""
    right = [True] * 6 + [True, False]
    wrong = [False] * 6 + [True, False]
    assert mcnemar(right, wrong) == McNemar(6, 0, 2 / 64)
    assert mcnemar(right, right) == McNemar(0, 0, 1.0)
    with pytest.raises(ValueError, match="is shorter than"):
        mcnemar(right, wrong[1:])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_mcnemar_is_symmetric_and_knows_no_order(pairs: list[tuple[bool, bool]]) -> None:
    one, other = [p[0] for p in pairs], [p[1] for p in pairs]
    found = mcnemar(one, other)
    assert mcnemar(other, one) == McNemar(found.only_second, found.only_first, found.p)
    assert mcnemar(one[::-1], other[::-1]) == found
    assert 0 < found.p <= 1


def test_mcnemar_of_many_images_is_quick_and_finite() -> None:
    assert mcnemar_of(5200, 4800).p == pytest.approx(stats.binomtest(5200, 10000).pvalue)
    assert mcnemar_of(3000, 0).p == 2 * 0.5**3000 == 0.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # 3·0.01, then 2·0.03, then at least that
    assert holm([0.5]) == [0.5]
    assert holm([]) == []
    assert holm([0.9, 0.6]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms())
def test_holm_is_monotone_and_knows_no_order(values: list[float], random: Any) -> None:
    adjusted = holm(values)
    assert all(a >= p for a, p in zip(adjusted, values, strict=True))
    ordered = [a for _, a in sorted(zip(values, adjusted, strict=True))]
    assert ordered == sorted(ordered)
    places = list(range(len(values)))
    random.shuffle(places)
    assert holm([values[i] for i in places]) == [adjusted[i] for i in places]
    # Called different at α by the step-down rule of the paper, written out.
    alpha, rejected = 0.05, set()
    for done, place in enumerate(np.argsort(values, kind="stable")):
        if values[place] * (len(values) - done) > alpha:
            break
        rejected.add(int(place))
    assert {i for i, a in enumerate(adjusted) if a <= alpha} == rejected
