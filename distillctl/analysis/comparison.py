"""Groups of runs beside their controls, and what the differences are worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from distillctl.analysis.baselines import controls_of
from distillctl.analysis.control import LABELS_ALONE
from distillctl.analysis.groups import Difference, Figure, Group, Pair, grouped, seeds_text
from distillctl.analysis.records import RunRecord
from distillctl.analysis.settings import METHOD, Differing
from distillctl.analysis.statistics import McNemar, holm, paired_t, wilcoxon
from distillctl.text import some

ALPHA = 0.05
_LOWER = frozenset({"loss", "ece", "kl"})


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
    parts = grouped(runs, figure, by)
    groups = parts.groups
    chosen = controls_of(parts, control, strict=not by)
    others = [one for one in parts.found if one.key not in parts.keys]
    notes = [*parts.notes, *chosen.notes, *_confounded(groups, chosen.of, others), *_unpaired(groups, chosen.of)]
    untested: dict[str, list[str]] = {}
    pairs = [_against(group, chosen.of[index], groups, answers, untested) for index, group in enumerate(groups)]
    notes += [f"no McNemar's test of {some(names)}: {why}" for why, names in untested.items()]
    groups = [replace(group, against=one) for group, one in zip(groups, _judged(pairs, lower_is_better(figure.metric)), strict=True)]
    return Comparison(
        figure.metric,
        figure.words,
        figure.percent,
        lower_is_better(figure.metric),
        figure.split,
        figure.at,
        " or ".join(sorted({str(run.result.get("chosen_on", "val")) for run in runs})),
        parts.keys,
        groups,
        others,
        notes,
        figure.budget,
    )


def _confounded(groups: Sequence[Group], controls: Sequence[int | None], others: Sequence[Differing]) -> list[str]:
    """Which groups differ from their control in more than what tells groups apart; one sentence for those that are alike in it."""
    alike: dict[tuple[str, str], list[str]] = {}
    for group, control in zip(groups, controls, strict=True):
        if control is None:
            continue
        mine, theirs = ({run.path for run in one.runs} for one in (group, groups[control]))
        alone = {run.method for run in groups[control].runs} == {LABELS_ALONE}  # then a method is what is compared
        keys = [one.key for one in others if _differ(one, mine, theirs) and not (alone and one.key == METHOD)]
        if keys:
            alike.setdefault((groups[control].name, some(keys)), []).append(group.name)
    return [
        f"{some(names)} and `{control}` differ in {keys}, too, which may be why their figures do"
        for (control, keys), names in alike.items()
    ]


def _differ(one: Differing, mine: Set[Path], theirs: Set[Path]) -> bool:
    """Whether two groups that both have a key have other values of it."""
    values = [{value for value, runs in one.values.items() if not group.isdisjoint(run.path for run in runs)} for group in (mine, theirs)]
    return bool(values[0] and values[1] and values[0] != values[1])


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
    answers: Callable[[RunRecord, RunRecord], McNemar | str] | None,
    untested: dict[str, list[str]],
) -> Difference | None:
    """A group beside its control. untested: by the reason the groups without McNemar's test, which is added to."""
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
                untested.setdefault(told, []).append(group.name)
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
