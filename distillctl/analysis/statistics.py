"""Statistics of a few runs: mean and spread, differences paired over seeds, exact tests, and what many comparisons do to a p value.

Pure functions on sequences of floats. SciPy is imported where Student's distribution is needed, and of it `scipy.special` alone: that
takes a fourth of the time of `scipy.stats`, and the tests hold all of this to the latter's figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from distillctl.errors import MachineError

CONFIDENCE = 0.95
_EQUAL = 1e-9
"""Differences whose spread is below this share of them are equal: what is left is rounding."""


@dataclass(frozen=True)
class PairedT:
    """Student's paired t-test.

    mean, sd: of the differences.
    low, high: the interval of the mean at `CONFIDENCE`.
    statistic, p: t, and the two-sided probability of a |t| as large if the mean of all differences were 0.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float
    statistic: float
    p: float


@dataclass(frozen=True)
class Wilcoxon:
    """Wilcoxon's signed-rank test.

    n: differences that are not 0.
    statistic: the smaller of the sums of ranks of the positive and of the negative ones.
    p: two-sided and exact. smallest: the least that it can be with as many differences.
    """

    n: int
    statistic: float
    p: float
    smallest: float


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test of two classifiers on the same images.

    only_first, only_second: images that this one alone has right.
    p: two-sided.
    """

    only_first: int
    only_second: int
    p: float


def mean(values: Sequence[float]) -> float:
    """Σx/n.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("the mean of nothing")
    return fmean(values)


def sample_sd(values: Sequence[float]) -> float | None:
    """√(Σ(x − mean)² / (n − 1)); None of fewer than two values."""
    if len(values) < 2:
        return None
    centre = fmean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def paired_t(differences: Sequence[float]) -> PairedT | None:
    """With t = mean / (sd / √n) and n − 1 degrees of freedom; the interval is mean ± t(0.975) · sd / √n (Student 1908).

    None where it says nothing: of fewer than two differences, and of equal ones, whose spread of 0 would make any difference certain.

    Raises:
        MachineError: SciPy is not installed.
    """
    n, sd = len(differences), sample_sd(differences)
    if sd is None or sd <= _EQUAL * max(map(abs, differences)):
        return None
    special = _special()
    centre, error = fmean(differences), sd / math.sqrt(n)
    statistic = centre / error
    half = float(special.stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * error
    return PairedT(n, centre, sd, centre - half, centre + half, statistic, 2 * float(special.stdtr(n - 1, -abs(statistic))))


def wilcoxon(differences: Sequence[float]) -> Wilcoxon | None:
    """Ranks of |d|, equal ones sharing their mean rank; W is the sum of those of positive differences (Wilcoxon 1945).

    p is counted over all 2ⁿ signs, so that it is exact with equal ranks, too. Differences of 0 are left out; None if none is left.
    """
    nonzero = [one for one in differences if one != 0]
    n = len(nonzero)
    if not n:
        return None
    doubled = _doubled_ranks([abs(one) for one in nonzero])
    positive = sum(rank for rank, one in zip(doubled, nonzero, strict=True) if one > 0)
    smaller = min(positive, sum(doubled) - positive)
    ways = [1] + [0] * smaller  # signs by their sum of ranks, as far as the smaller one
    for rank in doubled:
        for total in range(smaller, rank - 1, -1):
            ways[total] += ways[total - rank]
    return Wilcoxon(n, smaller / 2, min(1.0, 2 * sum(ways) / 2**n), min(1.0, 2 / 2**n))


def _doubled_ranks(values: Sequence[float]) -> list[int]:
    """Twice the mean rank of each value, which is a whole number."""
    ordered = sorted(values)
    first = {value: place for place, value in reversed(list(enumerate(ordered, start=1)))}
    last = {value: place for place, value in enumerate(ordered, start=1)}
    return [first[value] + last[value] for value in values]


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """Of n images that just one of the two has right, the first has b: p = 2 · P(X ≤ min(b, n − b)) with X binomial (n, ½), at most 1.

    McNemar 1947, exact as in Dietterich 1998 (Neural Computation 10).

    Args:
        first: for each image, whether the answer is right.
        second: the other classifier's.

    Raises:
        ValueError: there are not as many of one as of the other.
    """
    pairs = [(bool(one), bool(other)) for one, other in zip(first, second, strict=True)]
    return mcnemar_of(sum(one and not other for one, other in pairs), sum(other and not one for one, other in pairs))


def mcnemar_of(only_first: int, only_second: int) -> McNemar:
    """The same from the two counts."""
    n, term, below = only_first + only_second, 1, 0
    for k in range(min(only_first, only_second) + 1):
        below += term
        term = term * (n - k) // (k + 1)
    return McNemar(only_first, only_second, min(1.0, 2 * below / 2**n))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted for as many comparisons (Holm 1979): the i-th smallest of m times (m − i + 1), at least the adjusted one before, at most 1.

    If those below α are called different, the probability that any of them is called so wrongly is at most α.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for done, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - done)))
        adjusted[place] = largest
    return adjusted


def _special() -> Any:
    try:
        import scipy.special  # type: ignore[import-untyped]
    except ImportError as error:
        raise MachineError(
            f"the statistics of several runs need SciPy, which cannot be imported: {error}", hint="`pip install 'distillctl[analysis]'`"
        ) from error
    return scipy.special
