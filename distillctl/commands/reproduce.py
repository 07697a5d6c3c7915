"""Trains what a profile publishes with several seeds, and says whether the mean lies within the band around the published figure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from distillctl.analysis.records import RunRecord
from distillctl.api.tracker import Tracker
from distillctl.commands.train import train
from distillctl.errors import ProfileError, RunError
from distillctl.plugin.registry import Registry
from distillctl.profile.published import Figure
from distillctl.profile.published_table import asked
from distillctl.profile.reading import load
from distillctl.profile.schema import Profile
from distillctl.rundir.directory import ROOT
from distillctl.text import counted


@dataclass(frozen=True)
class Reached:
    """What one seed reached, in the unit of the published figure. teacher: its teacher, if there is one."""

    seed: int
    path: Path
    value: float
    teacher: float | None


@dataclass(frozen=True)
class Reproduction:
    """What was published and what was reached.

    words: the figure's name as it is printed. unit: ` %` or nothing.
    teacher: the published figure of the teacher.
    others: what makes these runs others than the published ones; empty for the published recipe.
    """

    figure: Figure
    words: str
    unit: str
    teacher: float | None
    seeds: tuple[Reached, ...]
    others: tuple[str, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(one.value for one in self.seeds)

    @property
    def sd(self) -> float | None:
        """Over the seeds, divided by one less; None for one seed."""
        return statistics.stdev(one.value for one in self.seeds) if len(self.seeds) > 1 else None

    @property
    def difference(self) -> float:
        """How much more is reached than published."""
        return self.mean - self.figure.value

    @property
    def band(self) -> float:
        """By how much the mean may differ."""
        return self.figure.band(len(self.seeds))

    @property
    def within(self) -> bool:
        """Whether it differs by no more than that; a difference of rounding counts for nothing."""
        return abs(self.difference) <= self.band + 1e-9

    @property
    def passed(self) -> bool:
        """Whether the published recipe reached the published figure."""
        return self.within and not self.others


def reproduce(
    profile: str | Path,
    registry: Registry,
    display: Tracker,
    *,
    seeds: int = 3,
    overrides: Sequence[str] = (),
    method: str | None = None,
    teacher: str | None = None,
    device: str = "auto",
    root: Path = ROOT,
    command: Sequence[str] = (),
) -> Reproduction:
    """Trains the profile with the seeds 0, 1, …, or finds those runs finished, and compares.

    Args:
        profile: a profile with a [published] table.
        registry: where its names are found.
        display: is told what happens.
        seeds: how many.
        overrides: `KEY=VALUE` as for `load`. Others than published ones make another experiment, but for where data lie.
        method: another method; the figure is that of `[published.methods]`.
        teacher: another teacher.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        root: where runs lie.
        command: the command line, for the record.

    Raises:
        ProfileError: nothing is published for this.
        DistillError: a run failed; those that are there stay.
        StoppedError: a signal ended it; the same call continues.
    """

    def profile_of(seed: int, method: str | None = method) -> Profile:
        return load(profile, registry=registry, overrides=overrides, method=method, teacher=teacher, seed=seed)

    first = profile_of(0)
    named = method
    if method is not None:
        with suppress(ProfileError):  # one that teaches may need a method that is named
            named = None if profile_of(0, None).digest == first.digest else method  # the profile's own, named once more
    figure, exact = first.published.of(asked(named, teacher, overrides))
    if figure is None:
        methods = ", ".join(f"`{one.method}`" for one in first.published.figures if one.method and not one.values)
        hint = f"figures are there for the methods {methods}" if methods else "a [published] table states `top1 = 73.33` and its `source`"
        what = f" for the method `{method}`" if method else ""
        raise ProfileError(f"`{profile}` states no published figure{what}", where=str(profile), hint=hint)
    others = [] if exact else ["options that were not published"]
    reached = []
    for seed in range(seeds):
        display.note(f"seed {seed}: {seed + 1} of {counted(seeds, 'run')}")
        result = train(profile_of(seed), registry, display, device=device, root=root, command=command)
        run = RunRecord.read(result.path)
        percent = run.show(figure.name, 1.0).endswith("%")
        found = run.figures(figure.table.split, figure.table.epoch).get(figure.name)
        if found is None:
            raise RunError(f"the run `{run.path}` has no `{figure.name}` on {figure.table.split}, which was published")
        of_teacher = run.result.get("teacher", {}).get(figure.name)
        scale = 100 if percent else 1
        reached.append(Reached(seed, run.path, scale * found, None if of_teacher is None else scale * of_teacher))
        if run.info.get("changes"):
            others.append(f"`{run.path}` went on after an accepted change")
    words, unit = run.names.get(figure.name, figure.name), " %" if percent else ""
    return Reproduction(figure, words, unit, first.published.teacher, tuple(reached), tuple(others))
