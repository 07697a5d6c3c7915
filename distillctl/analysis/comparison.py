"""Groups of runs, their figures over seeds, and what a difference to the control is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from distillctl.analysis.compute import Compute, compute_of, mean_compute
from distillctl.analysis.control import LABELS_ALONE
from distillctl.analysis.records import RunRecord
from distillctl.analysis.settings import METHOD, Differing, Facts, differing, key_of, value_of
from distillctl.analysis.statistics import McNemar, PairedT, Wilcoxon, holm, mean, paired_t, sample_sd, wilcoxon
from distillctl.errors import ProfileError
from distillctl.profile.problems import nearest
from distillctl.text import counted, some

ALPHA = 0.05
_LOWER = frozenset({"loss", "ece", "kl"})
_OF_OTHERS = (METHOD, "teacher")
"""Tables that not every run has: a control has neither."""
_DIGITS = 12
"""Decimals of a difference: the rest is rounding, which would tell equal differences apart."""


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


@dataclass(frozen=True)
class Comparison:
    """What was compared.

    metric, words: a figure by name and in words. percent: whether it is a share. lower: whether lower is better.
    split, at: of which images and of which epoch, `best` or `last`; chosen_on: by what the best was chosen.
    by: the keys that tell groups apart.
    differing: every other key that differs between the runs.
    notes: what one should know of the figures, a sentence each.
    budget: multiply-accumulates of a run within which figures were reached; None where whole runs are compared.
    """

    metric: str
    words: str
    percent: bool
    lower: bool
    split: str
    at: str
    chosen_on: str
    by: Sequence[str]
    groups: Sequence[Group]
    differing: Sequence[Differing]
    notes: Sequence[str]
    budget: float | None = None


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


def lower_is_better(metric: str) -> bool:
    """Whether a figure is an error."""
    return metric in _LOWER


def compare_runs(
    runs: Sequence[RunRecord],
    figure: Figure,
    *,
    by: Sequence[str] = (),
    control: str = "",
    answers: Callable[[RunRecord, RunRecord], McNemar | str] | None = None,
) -> Comparison:
    """Compares finished runs.

    Args:
        runs: that have the figure.
        figure: what is compared.
        by: keys by which runs are grouped; without them all settings that differ, but seeds.
        control: the name of a group, or the directory of one of its runs, with which all others are compared.
        answers: McNemar's test of two runs, or a sentence why there is none.

    Raises:
        ProfileError: there is no such key or group.
    """
    keys, groups, found, facts, notes = grouped(runs, figure, by)
    chosen = _controls(groups, facts, keys, found, control, strict=not by)
    notes += chosen.notes
    notes += _unpaired(groups, chosen.of)
    pairs = [_against(group, chosen.of[index], groups, notes, answers) for index, group in enumerate(groups)]
    groups = [replace(group, against=one) for group, one in zip(groups, _judged(pairs, lower_is_better(figure.metric)), strict=True)]
    return Comparison(
        figure.metric,
        figure.words,
        figure.percent,
        lower_is_better(figure.metric),
        figure.split,
        figure.at,
        " or ".join(sorted({str(run.result.get("chosen_on", "val")) for run in runs})),
        keys,
        groups,
        [one for one in found if one.key not in keys],
        notes,
        figure.budget,
    )


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
    for values in sorted(parts, key=_order(keys)):
        name = _name(keys, values)
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


def _order(keys: Sequence[str]) -> Callable[[tuple[str, ...]], tuple[object, ...]]:
    """Controls first, then by values, numbers as numbers."""

    def place(values: tuple[str, ...]) -> tuple[object, ...]:
        control = METHOD in keys and values[list(keys).index(METHOD)] != LABELS_ALONE
        return (control, *((0, float(value), "") if _is_number(value) else (1, 0.0, value) for value in values))

    return place


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
        elif value or key.partition(".")[0] not in _OF_OTHERS:
            parts.append(f"{short(key)} {value or 'not set'}")
    return ", ".join(parts) or LABELS_ALONE


def short(key: str) -> str:
    """The last part of a key."""
    return key.removeprefix("package ").rpartition(".")[2]


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


@dataclass(frozen=True)
class _Controls:
    """of: for each group the place of its control; None where there is none."""

    of: Sequence[int | None]
    notes: list[str]


def _controls(
    groups: Sequence[Group],
    facts: Mapping[Path, Facts],
    keys: Sequence[str],
    found: Sequence[Differing],
    control: str,
    *,
    strict: bool,
) -> _Controls:
    if control:
        chosen = _named(control, groups)
        return _Controls([None if index == chosen else chosen for index in range(len(groups))], [])
    candidates = [index for index, group in enumerate(groups) if {run.method for run in group.runs} == {LABELS_ALONE}]
    compared = [one.key for one in found if one.kind == "setting"] if strict else list(keys)
    compared = [key for key in compared if key.partition(".")[0] not in _OF_OTHERS]
    common = [[value_of(key, facts[group.runs[0].path]) if strict else group.values[key] for key in compared] for group in groups]
    of: list[int | None] = []
    without: list[int] = []
    for index in range(len(groups)):
        same = [one for one in candidates if one != index and common[one] == common[index]]
        of.append(same[0] if same and index not in candidates else None)
        if index not in candidates and not same:
            without.append(index)
    if not without or len(groups) < 2:
        return _Controls(of, [])
    names = some([groups[index].name for index in without])
    if not candidates:
        return _Controls(of, [f"no control for {names}: no run has the method `none`; `--control NAME` chooses a baseline"])
    other = sorted(
        {key for index in without for key, mine, theirs in _nearest_control(index, candidates, common, compared) if mine != theirs}
    )
    return _Controls(
        of,
        [
            f"no control for {names}: the runs from labels alone differ from it in {some(other)}; "
            f"`--control {_quoted(groups[candidates[0]].name)}` compares with one all the same"
        ],
    )


def _nearest_control(
    index: int, candidates: Sequence[int], common: Sequence[Sequence[str]], compared: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Key, value and the control's value, of the control that differs in the fewest settings."""
    ways = [list(zip(compared, common[index], common[one], strict=True)) for one in candidates]
    return min(ways, key=lambda way: sum(mine != theirs for _, mine, theirs in way))


def _quoted(name: str) -> str:
    return f"'{name}'" if " " in name else name


def _named(control: str, groups: Sequence[Group]) -> int:
    """The group of this name, with this method or other value alone, or with this run."""
    ways = (
        [index for index, group in enumerate(groups) if group.name == control],
        [index for index, group in enumerate(groups) if control in group.values.values()],
        [
            index
            for index, group in enumerate(groups)
            if any(control in (str(run.path), run.path.name) for run in (*group.runs, *group.copies))
        ],
        [index for index, group in enumerate(groups) if any(_same_place(control, run) for run in (*group.runs, *group.copies))],
    )
    found = next((way for way in ways if way), [])
    names = [group.name for group in groups]
    if len(found) == 1:
        return found[0]
    if found:
        raise ProfileError(f"`{control}` may mean {some([names[index] for index in found])}", where="--control")
    raise ProfileError(
        f"no group and no compared run is called `{control}`",
        where="--control",
        hint=nearest(control, names) or f"groups are {some(names)}",
    )


def _same_place(control: str, run: RunRecord) -> bool:
    try:
        return run.path.resolve() == Path(control).resolve()
    except (OSError, ValueError):
        return False


def _unpaired(groups: Sequence[Group], controls: Sequence[int | None]) -> list[str]:
    """Which groups have other seeds than their control; one sentence for those that are alike in it."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for group, control in zip(groups, controls, strict=True):
        if control is None or set(group.seeds) == set(groups[control].seeds):
            continue
        both = group.seeds.keys() & groups[control].seeds.keys()
        paired = f"pairs are of {seeds_text(both)}" if both else "there is no pair, and no difference"
        words = seeds_text(group.seeds), groups[control].name, seeds_text(groups[control].seeds), paired
        alike.setdefault(words, []).append(group.name)
    return [f"{some(names)}: {mine}; `{control}`: {theirs}: {paired}" for (mine, control, theirs, paired), names in alike.items()]


def _against(
    group: Group,
    control: int | None,
    groups: Sequence[Group],
    notes: list[str],
    answers: Callable[[RunRecord, RunRecord], McNemar | str] | None,
) -> Difference | None:
    if control is None:
        return None
    other = groups[control]
    pairs = [Pair(seed, other.seeds[seed], value) for seed, value in group.seeds.items() if seed in other.seeds]
    if not pairs:
        return None
    differences = [pair.difference for pair in pairs]
    if len(pairs) > 1:
        return Difference(other.name, pairs, paired_t(differences), wilcoxon(differences))
    mcnemar = None
    if answers is not None:
        of_seed = [[run for run in one.runs if run.seed == pairs[0].seed] for one in (other, group)]
        if all(len(runs) == 1 for runs in of_seed):
            told = answers(of_seed[0][0], of_seed[1][0])
            if isinstance(told, str):
                notes.append(f"no McNemar's test of `{group.name}`: {told}")
            else:
                mcnemar = told
    return Difference(other.name, pairs, mcnemar=mcnemar)


def _judged(differences: Sequence[Difference | None], lower: bool) -> list[Difference | None]:
    """With p values adjusted for all of their kind, and a verdict."""
    result = list(differences)
    for kind in ("t", "mcnemar"):
        places = [index for index, one in enumerate(result) if one is not None and getattr(one, kind) is not None]
        adjusted = holm([getattr(result[index], kind).p for index in places])
        for index, p in zip(places, adjusted, strict=True):
            one = result[index]
            assert one is not None
            outside = kind == "t" and p < ALPHA
            result[index] = replace(one, adjusted=p, verdict=("better" if (one.mean > 0) != lower else "worse") if outside else "")
    return result
