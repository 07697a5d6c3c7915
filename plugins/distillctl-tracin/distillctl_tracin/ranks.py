"""How alike two rankings of the same items are, beside what unrelated ones give.

Of two unrelated rankings of N items the first k have C items in common, where C is hypergeometric: E[C] = k²/N. So an overlap means nothing
without k and N beside it: 644 of the first 800 of 1,000 items are what chance gives (640).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.stats import hypergeom, kendalltau, rankdata  # type: ignore[import-untyped]

Array = npt.NDArray[np.floating]
PERSISTENCE = 0.99
"""p of the rank-biased overlap: the first 100 places have 86 % of its weight."""


@dataclass(frozen=True)
class Chance:
    """What the first k of two unrelated rankings of `pool` items have in common: mean, standard deviation, and the middle 95 %."""

    expected: float
    deviation: float
    low: int
    high: int


@cache
def chance(k: int, pool: int) -> Chance:
    """Of the first `k` of `pool` items."""
    low, high = hypergeom(pool, k, k).interval(0.95)
    expected = k * k / pool
    deviation = expected**0.5 * (1 - k / pool) ** 0.5 * ((pool - k) / (pool - 1)) ** 0.5 if pool > 1 else 0.0
    return Chance(expected, deviation, int(low), int(high))


def depths(one: Array, other: Array) -> npt.NDArray[np.int64]:
    """For each of N items how deep both rankings must be read to meet it in both, from 0; the largest value ranks first.

    Equal values rank by position in both.
    """
    return np.maximum(_places(one), _places(other))


def _places(values: Array) -> npt.NDArray[np.int64]:
    order = np.argsort(-values, kind="stable")
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return places


def common(found: npt.NDArray[np.int64], k: int) -> int:
    """How many items both have among their first k. found: of `depths`."""
    return int((found < k).sum())


def rank_biased_overlap(found: npt.NDArray[np.int64], p: float = PERSISTENCE) -> float:
    """Mean share of common items among the first d, with weight p^d: 1 for equal rankings, with the tail beyond N taken for common.

    Webber, Moffat, Zobel 2010, A similarity measure for indefinite rankings.
    """
    depth = np.arange(1, len(found) + 1)
    shares = np.cumsum(np.bincount(found, minlength=len(found))) / depth
    return float((1 - p) * (shares * p ** (depth - 1)).sum() + p ** len(found))


def spearman(one: Array, other: Array) -> float | None:
    """Correlation of the ranks, equal values sharing theirs; None where all values of one side are equal."""
    ranks = rankdata(one), rankdata(other)
    if min(np.ptp(rank) for rank in ranks) == 0:
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def kendall(one: Array, other: Array) -> float | None:
    """Kendall's τ_b; None where all values of one side are equal."""
    value = float(kendalltau(one, other).statistic)
    return None if np.isnan(value) else value


def rank_biased_by_chance(pool: int, p: float = PERSISTENCE) -> float:
    """The mean of `rank_biased_overlap` over unrelated rankings: the share of common items among the first d is d/N."""
    depth = np.arange(1, pool + 1)
    return float((1 - p) * (depth / pool * p ** (depth - 1)).sum() + p**pool)
