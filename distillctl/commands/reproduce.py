"""Trains what a profile publishes with several seeds, and says whether the mean lies within the band around the published figure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from distillctl.analysis.records import RunRecord
from distillctl.commands.sweep import Plan, plan
from distillctl.commands.sweep_runner import Event, Listed, Runner
from distillctl.errors import ProfileError, RunError
from distillctl.plugin.registry import Registry
from distillctl.profile.published import Figure
from distillctl.profile.published_table import asked
from distillctl.profile.sweep import Sweep
from distillctl.slurm.request import Request


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
    request: Request,
    registry: Registry,
    *,
    seeds: int = 3,
    jobs: int = 1,
    teller: Callable[[Plan], Callable[[Event], object]] = lambda _: lambda _: None,
    flags: Sequence[str] = (),
) -> Reproduction:
    """Trains the profile with the seeds 0, 1, …, as `train --seeds` does and in the same folder, and compares. Finished runs are taken.

    Args:
        request: what `train` would be asked for, without a seed. Other values than published ones make another experiment, but for where
            data lie; another method has its own figure.
        registry: where names are found.
        seeds: how many.
        jobs: how many are trained at once.
        teller: makes of the checked runs who is told of every beginning and end.
        flags: further options for each `train`.

    Raises:
        ProfileError: nothing is published for this.
        RunError: some runs failed; the others stay.
        StoppedError: a signal ended it; the same call continues.
    """
    profile, method = request.load(registry), request.method
    if method is not None:
        with suppress(ProfileError):  # a profile that teaches nobody may need its method named
            if replace(request, method=None).load(registry).digest == profile.digest:
                method = None  # the profile's own, named once more
    figure, exact = profile.published.of(asked(method, request.teacher, request.overrides))
    if figure is None:
        methods = ", ".join(f"`{one.method}`" for one in profile.published.figures if one.method and not one.values)
        hint = f"figures are there for the methods {methods}" if methods else "a [published] table states `top1 = 73.33` and its `source`"
        what = f" for the method `{method}`" if method else ""
        raise ProfileError(f"`{request.profile}` states no published figure{what}", where=request.profile, hint=hint)
    made = plan(request, Sweep({}, tuple(range(seeds)), jobs=jobs), registry)
    Runner(made, Listed(made.cells), teller(made), flags).run()
    runs = [(cell.seed, RunRecord.read(cell.path)) for cell in made.cells]
    others = [] if exact else ["options that were not published"]
    others += [f"`{run.path}` went on after an accepted change" for _, run in runs if run.info.get("changes")]
    first = runs[0][1]
    percent = first.is_share(figure.name)
    words, unit = first.names.get(figure.name, figure.name), " %" if percent else ""
    reached = tuple(_reached(seed, run, figure, 100 if percent else 1) for seed, run in runs)
    return Reproduction(figure, words, unit, profile.published.teacher, reached, tuple(others))


def _reached(seed: int, run: RunRecord, figure: Figure, scale: int) -> Reached:
    """Raises:
    RunError: the run does not have the figure.
    """
    found = run.figures(figure.table.split, figure.table.epoch).get(figure.name)
    if found is None:
        raise RunError(f"the run `{run.path}` has no `{figure.name}` on {figure.table.split}, which was published")
    of_teacher = run.result.get("teacher", {}).get(figure.name)
    return Reached(seed, run.path, scale * found, scale * of_teacher if isinstance(of_teacher, float) else None)
