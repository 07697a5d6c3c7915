"""How alike rankings are, against sets and loops, and beside what chance gives."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from distillctl_tracin import ranks


def two(seed, count=50):
    draw = np.random.default_rng(seed)
    return draw.normal(size=count), draw.normal(size=count)


def order(values):
    return sorted(range(len(values)), key=lambda i: -values[i])


def test_common_elements_are_those_of_the_sets():
    one, other = two(0)
    found = ranks.depths(one, other)
    for k in (1, 2, 10, 33, 50):
        assert ranks.common(found, k) == len(set(order(one)[:k]) & set(order(other)[:k]))


def test_equal_rankings_have_all_in_common():
    one, _ = two(0)
    found = ranks.depths(one, 3 * one + 1)
    assert [ranks.common(found, k) for k in (1, 10, 50)] == [1, 10, 50]
    assert ranks.rank_biased_overlap(found) == pytest.approx(1)
    assert (ranks.spearman(one, one), ranks.kendall(one, one)) == pytest.approx((1, 1))


def test_chance_by_counting_all_rankings():
    """Of all pairs of 3 of 6 items."""
    tops = list(itertools.combinations(range(6), 3))
    counts = [len(set(one) & set(other)) for one in tops for other in tops]
    law = ranks.chance(3, 6)
    assert law.expected == pytest.approx(np.mean(counts))
    assert law.deviation == pytest.approx(np.std(counts))
    assert (law.low, law.high) == (0, 3)


@pytest.mark.parametrize(("k", "expected"), [(100, 10), (500, 250), (800, 640), (1000, 1000)])
def test_what_a_published_table_of_1000_images_is_by_chance(k, expected):
    law = ranks.chance(k, 1000)
    assert law.expected == expected
    assert law.low <= expected <= law.high
    published = {100: 14, 500: 260, 800: 644, 1000: 1000}[k]
    assert law.low <= published <= law.high


def test_unrelated_rankings_are_within_the_interval():
    inside = ranks.chance(100, 500)
    counts = [ranks.common(ranks.depths(*two(seed, 500)), 100) for seed in range(300)]
    assert 0.93 <= np.mean([inside.low <= count <= inside.high for count in counts]) <= 1
    assert np.mean(counts) == pytest.approx(inside.expected, abs=4 * inside.deviation / math.sqrt(300))
    assert np.std(counts) == pytest.approx(inside.deviation, rel=0.15)


def test_rank_biased_overlap_by_loops():
    one, other = two(3)
    p, total = 0.9, 0.0
    for d in range(1, 51):
        total += (1 - p) * p ** (d - 1) * len(set(order(one)[:d]) & set(order(other)[:d])) / d
    assert ranks.rank_biased_overlap(ranks.depths(one, other), p) == pytest.approx(total + p**50)
    found = [ranks.rank_biased_overlap(ranks.depths(*two(seed)), p) for seed in range(500)]
    assert np.mean(found) == pytest.approx(ranks.rank_biased_by_chance(50, p), abs=0.01)


def test_correlations_are_scipys():
    one, other = two(4)
    other[:10] = other[0]  # equal values
    assert ranks.spearman(one, other) == pytest.approx(stats.spearmanr(one, other).statistic)
    assert ranks.kendall(one, other) == pytest.approx(stats.kendalltau(one, other).statistic)


def test_a_side_of_equal_values_has_no_correlation():
    one, _ = two(5)
    assert ranks.spearman(one, np.zeros(50)) is None
    assert ranks.kendall(one, np.zeros(50)) is None
