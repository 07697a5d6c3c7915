"""Runs in groups: by the settings in which they differ, each with its figure for every seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from distillctl.analysis.compute import Compute, compute_of, mean_compute
from distillctl.analysis.control import LABELS_ALONE
from distillctl.analysis.records import RunRecord
from distillctl.analysis.settings import METHOD, Differing, Facts, differing, key_of, value_of
from distillctl.analysis.statistics import McNemar, PairedT, Wilcoxon, mean, sample_sd
from distillctl.text import counted

OF_OTHERS = (METHOD, "teacher")
"""Tables that not every run has: a control has neither."""
_DIGITS = 12
"""Decimals of a difference: the rest is rounding, which would tell equal differences apart."""


@dataclass(frozen=True)
class Figure:
    """Which figure of a run is compared, and how it is found."""

    metric: str
    words: str
    percent: bool
    split: str
    at: str
    of: Callable[[RunRecord], float | None]
    budget: float | None = None


@dataclass(frozen=True)
class Pair:
    """The figures of one seed."""

    seed: int
    control: float
    value: float

    @property
    def difference(self) -> float:
        """Of the group to its control."""
        return round(self.value - self.control, _DIGITS)


@dataclass(frozen=True)
class Difference:
    """A group beside its control, over the seeds that both have.

    t: None where there are fewer than two pairs, or all differences are equal.
    adjusted: the p of `t`, or of `mcnemar`, after Holm's correction for all differences of the same kind.
    mcnemar: of a single pair whose answers are known; `control` is its first.
    verdict: `better` or `worse`, if `t`, adjusted, is below `ALPHA`; else empty.
    """

    control: str
    pairs: Sequence[Pair]
    t: PairedT | None = None
    wilcoxon: Wilcoxon | None = None
    mcnemar: McNemar | None = None
    adjusted: float | None = None
    verdict: str = ""

    @property
    def mean(self) -> float:
        """Of the differences."""
        return mean([pair.difference for pair in self.pairs])


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone, or in nothing by which runs were grouped.

    values: by key what they have in common.
    runs, copies: those that count, and those that repeat the results of one of them.
    seeds: the figure of each seed.
    compute: the mean of a run.
    against: None for a control, and for a group without one.
    """

    name: str
    values: Mapping[str, str]
    runs: Sequence[RunRecord]
    copies: Sequence[RunRecord]
    seeds: Mapping[int, float]
    compute: Compute
    against: Difference | None = None

    @property
    def mean(self) -> float:
        """Over seeds."""
        return mean(list(self.seeds.values()))

    @property
    def sd(self) -> float | None:
        """Of the sample of seeds; None of one seed."""
        return sample_sd(list(self.seeds.values()))


class Grouped(NamedTuple):
    """Runs by what they have in common. found: all that differs. facts: of each run by its directory."""

    keys: Sequence[str]
    groups: list[Group]
    found: Sequence[Differing]
    facts: Mapping[Path, Facts]
    notes: list[str]


def grouped(runs: Sequence[RunRecord], figure: Figure, by: Sequence[str] = ()) -> Grouped:
    """The groups, without what their differences are worth; as `compare_runs`."""
    known = [(run, Facts.of(run)) for run in runs]
    found = differing(known)
    keys = list(dict.fromkeys(key_of(name, known) for name in by)) or _telling(known, found)
    groups, notes = _grouped(known, keys, figure)
    return Grouped(keys, groups, found, {run.path: facts for run, facts in known}, notes)


def _telling(runs: Sequence[tuple[RunRecord, Facts]], found: Sequence[Differing]) -> list[str]:
    """As few of the settings that differ as tell all groups apart, the method first; the method alone where nothing differs."""
    candidates = [one.key for one in found if one.kind == "setting"]
    candidates.sort(key=lambda key: (key != METHOD, key.partition(".")[0] != METHOD))
    keys: list[str] = []
    parts = 1
    for key in candidates:
        more = len({tuple(value_of(one, facts) for one in [*keys, key]) for _, facts in runs})
        if more > parts:
            keys, parts = [*keys, key], more
    return keys or [METHOD]


def _grouped(runs: Sequence[tuple[RunRecord, Facts]], keys: Sequence[str], figure: Figure) -> tuple[list[Group], list[str]]:
    parts: dict[tuple[str, ...], list[RunRecord]] = {}
    for run, facts in runs:
        parts.setdefault(tuple(value_of(key, facts) for key in keys), []).append(run)
    groups: list[Group] = []
    notes: list[str] = []
    alone = {values: {run.method for run in of_values} == {LABELS_ALONE} for values, of_values in parts.items()}
    for values in sorted(parts, key=lambda values: (not alone[values], _order(values))):  # controls first
        name = _name(keys, values) or (LABELS_ALONE if alone[values] else "others")
        kept, told = _one_a_seed(name, parts[values], figure)
        notes += told
        seeds = {seed: mean([_figure(figure, run) for run in of_seed]) for seed, of_seed in sorted(kept.items())}
        every = [run for of_seed in kept.values() for run in of_seed]
        copies = [run for run in parts[values] if not any(run is one for one in every)]
        compute = mean_compute([compute_of(run) for run in every])
        groups.append(Group(name, dict(zip(keys, values, strict=True)), every, copies, seeds, compute))
    return groups, notes


def _figure(figure: Figure, run: RunRecord) -> float:
    value = figure.of(run)
    assert value is not None, "runs without the figure are left out before"
    return value


def _order(values: tuple[str, ...]) -> tuple[object, ...]:
    """Numbers as numbers, before words."""
    return tuple((0, float(value), "") if _is_number(value) else (1, 0.0, value) for value in values)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _name(keys: Sequence[str], values: Sequence[str]) -> str:
    """`kd, temperature 4`: the method by its name alone, other values with the last part of their key; no options of other methods."""
    parts = []
    for key, value in zip(keys, values, strict=True):
        if key == METHOD:
            parts.append(value)
        elif value or key.partition(".")[0] not in OF_OTHERS:
            parts.append(f"{short(key)} {value or 'not set'}")
    return ", ".join(parts)


def short(key: str) -> str:
    """The last part of a key: `temperature`; of a name its table: `student`."""
    return key.removeprefix("package ").removesuffix(".name").rpartition(".")[2]


def seeds_text(seeds: Iterable[int]) -> str:
    """`seed 3`, `seeds 0–4, 7`."""
    ordered = sorted(seeds)
    runs: list[list[int]] = []
    for seed in ordered:
        if runs and runs[-1][-1] == seed - 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    parts = [str(run[0]) if len(run) == 1 else f"{run[0]}{', ' if len(run) == 2 else '–'}{run[-1]}" for run in runs]
    return f"seed{'' if len(ordered) == 1 else 's'} {', '.join(parts)}"


def _one_a_seed(name: str, runs: Sequence[RunRecord], figure: Figure) -> tuple[dict[int, list[RunRecord]], list[str]]:
    """The runs of a group by seed; of runs with the same results one is left."""
    by_seed: dict[int, dict[str, RunRecord]] = {}
    for run in runs:
        results = repr((run.result.get("best"), run.result.get("last"), figure.of(run)))
        by_seed.setdefault(run.seed, {})[results] = run
    kept = {seed: list(of_seed.values()) for seed, of_seed in by_seed.items()}
    notes = []
    if copies := len(runs) - sum(map(len, kept.values())):
        told = f"{copies} repeat{'s' if copies == 1 else ''} the seed and the results of another: left out"
        notes.append(f"`{name}` has {counted(len(runs), 'run')}, of which {told}")
    if several := sorted(seed for seed, of_seed in kept.items() if len(of_seed) > 1):
        most = max(map(len, kept.values()))
        told = f"up to {most} runs of one seed with different results (of {seeds_text(several)})"
        notes.append(f"`{name}` has {told}, which count as one by their mean")
    return kept, notes
