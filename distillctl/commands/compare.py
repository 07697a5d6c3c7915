"""`distillctl compare` as a function: runs by name, their figures, and what the differences are worth. Without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from distillctl.analysis.comparison import Comparison, compare_runs, lower_is_better
from distillctl.analysis.compute import best_within, compute_of
from distillctl.analysis.groups import Figure, grouped
from distillctl.analysis.places import missing_of_sweeps, named_runs, without_teachers
from distillctl.analysis.records import At, RunRecord
from distillctl.analysis.statistics import McNemar, mcnemar_of
from distillctl.errors import DataError, ProfileError
from distillctl.profile.problems import nearest
from distillctl.rundir.directory import ROOT
from distillctl.text import counted, some

_SPLITS = ("test", "val")
_OTHER_IMAGES = "the two runs answered different images"


def compare(
    runs: str | Path | Sequence[str | Path] = (),
    *,
    by: str | Sequence[str] = (),
    metric: str = "",
    at: At = "best",
    split: Literal["", "test", "val"] = "",
    control: str = "",
    per_compute: bool = False,
    root: str | Path = ROOT,
) -> Comparison:
    """Compares finished runs over their seeds: what `distillctl compare` does. Writes nothing.

        found = compare("runs/temperatures", by="method.temperature")
        for group in found.groups:
            print(group.name, group.mean, group.sd, group.against and group.against.verdict)

    Args:
        runs: run directories, folders, sweeps, patterns, or names below `root`; all runs below `root` without them.
        by: keys by which runs are grouped, such as `method` or `train.precision`; all settings that differ without them.
        metric: the figure; by default the one that chose the best epoch.
        at: `best`, the epoch that was chosen, or `last`.
        split: `test` or `val`; by default the test split, where all runs have one.
        control: a group, or one of its runs, with which the others are compared; by default the runs from labels alone that else are the
            same.
        per_compute: compare what each run had reached within the compute of the cheapest group, on the validation split.
        root: where runs lie.

    Raises:
        ProfileError: a name leads to nothing, or the runs have no such figure in common.
        MachineError: SciPy is missing (`pip install 'distillctl[analysis]'`).
    """
    names = [runs] if isinstance(runs, str | Path) else list(runs)
    keys = [key for key in (by.split(",") if isinstance(by, str) else by) if key]
    found = named_runs(names, Path(root))
    notes = [f"`{path}` is left out: {reason}" for path, reason in found.damaged]
    finished = [run for run in found.runs if run.finished]
    if unfinished := [run for run in found.runs if not run.finished]:
        told = ", ".join(f"`{run.path}` ({run.epoch} of {run.epochs})" for run in unfinished[:3])
        more = f" and {len(unfinished) - 3} more" if len(unfinished) > 3 else ""
        notes.append(f"{counted(len(unfinished), 'run')} left out, whose epochs are not finished: {told}{more}")
    notes += missing_of_sweeps(found.runs)
    if not finished:
        raise ProfileError("none of the runs is finished", where="compare", hint="; ".join(notes))
    if per_compute and (split == "test" or at == "last"):
        raise ProfileError(
            "figures at equal compute are of the best epoch on the validation split: no other was evaluated on test", where="--per-compute"
        )
    finished, teachers = without_teachers(finished, names)
    notes += teachers
    figure, having, missing = _figure(finished, metric, at, "val" if per_compute else split)
    notes += missing
    if per_compute:
        figure, having, beyond = _within_budget(figure, having, keys)
        notes += beyond
    compared = compare_runs(having, figure, by=keys, control=control, answers=partial(_mcnemar, figure))
    return replace(compared, notes=[*notes, *compared.notes])


def _figure(runs: Sequence[RunRecord], metric: str, at: At, split: str) -> tuple[Figure, list[RunRecord], list[str]]:
    """What is compared, and the runs that have it."""
    metrics = Counter(run.metric for run in runs)
    if not metric and len(metrics) > 1:
        told = ", ".join(f"`{name}` ({counted(count, 'run')})" for name, count in metrics.most_common())
        raise ProfileError(f"the runs have other figures: {told}", where="compare", hint="name runs of one task, or a figure by `--metric`")
    name = metric or next(iter(metrics))
    chosen = ""
    having: list[RunRecord] = []
    for one in [split] if split else _SPLITS:
        found = [run for run in runs if name in run.figures(one, at)]
        if len(found) > len(having):
            chosen, having = one, found
        if len(having) == len(runs):  # val is asked of `metrics.jsonl` only where it must be
            break
    if not having:
        raise _no_figure(runs, name, at, [split] if split else _SPLITS)
    notes = []
    kept = {run.path for run in having}
    if missing := [str(run.path) for run in runs if run.path not in kept]:
        notes.append(f"{counted(len(missing), 'run')} left out, without `{name}` on {chosen}: {some(missing)}")
    first = having[0]

    def of(run: RunRecord) -> float | None:
        return run.figures(chosen, at).get(name)

    return Figure(name, first.names.get(name, name), first.is_share(name), chosen, at, of), having, notes


def _no_figure(runs: Sequence[RunRecord], name: str, at: At, splits: Sequence[str]) -> ProfileError:
    known = list(dict.fromkeys(key for run in runs for one in splits for key in run.figures(one, at) if key != "count"))
    where = " or ".join(splits)
    if not known:
        return ProfileError(f"no run has figures on {where}", where="--split")
    return ProfileError(
        f"no run has a figure `{name}` on {where}", where="--metric", hint=nearest(name, known) or f"there are {', '.join(known)}"
    )


def _within_budget(figure: Figure, runs: Sequence[RunRecord], by: Sequence[str]) -> tuple[Figure, list[RunRecord], list[str]]:
    """The figure of the best validation epoch within the compute of the cheapest group.

    That is the largest run of the group whose largest run is smallest, so that all of that group is whole.
    """
    totals = {run.path: compute_of(run).macs for run in runs}
    if missing := [str(run.path) for run in runs if totals[run.path] is None]:
        hint = "runs of older versions did not record it: name the others"
        raise ProfileError(f"the compute of {some(missing)} is not known", where="--per-compute", hint=hint)
    groups = grouped(runs, figure, by).groups
    budget = min(max(total for run in group.runs if (total := totals[run.path]) is not None) for group in groups)
    lower = lower_is_better(figure.metric)
    reached = {run.path: best_within(run, figure.metric, budget, lower=lower) for run in runs}
    notes = []
    if none := [str(path) for path, found in reached.items() if found is None]:
        notes.append(f"{counted(len(none), 'run')} left out, without an evaluation within that compute: {some(none)}")

    def of(run: RunRecord) -> float | None:
        found = reached[run.path]
        return None if found is None else found[1]

    kept = [run for run in runs if reached[run.path] is not None]
    return replace(figure, at="best", of=of, budget=budget), kept, notes


def _mcnemar(figure: Figure, first: RunRecord, second: RunRecord) -> McNemar | str:
    """The test on the answers that two runs left, or why there is none."""
    if figure.metric != "top1":
        return f"it compares answers that are right, and not {figure.words}"
    if figure.at != "best" or figure.budget is not None:
        return "answers are kept of the chosen epoch alone"
    if len({str(run.info.get("data_listing", {}).get(figure.split)) for run in (first, second)}) > 1:
        return _OTHER_IMAGES
    # With numpy, which is imported where it is needed: it takes a tenth of a second.
    from distillctl.analysis.per_class import same_images
    from distillctl.rundir.answers import answers_file, read_answers

    try:
        mine, theirs = (read_answers(answers_file(run.path, figure.split)) for run in (first, second))
    except DataError as error:
        return error.problems[0].message
    if not same_images(mine, theirs):
        return _OTHER_IMAGES
    return mcnemar_of(int((mine.right & ~theirs.right).sum()), int((theirs.right & ~mine.right).sum()))
