"""`[published]`: what was published for a profile, so that `reproduce` can say whether runs reach it; no part of what a run is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from distillctl.api.options import Options

BAND = 0.5
"""By how much a reproduced figure may differ where the table says nothing of it, in the figure's own unit (points of percent)."""


class FigureTable(Options):
    """One published figure, beside which stands `FIGURE = VALUE`, such as `top1 = 73.33`: in percent if the figure is told in percent."""

    source: str = ""
    """Where it was published."""
    epoch: Literal["last", "best"] = "last"
    """Of which epoch of ours it is compared with: the last, or the one that the validation split chose."""
    split: Literal["test", "val"] = "test"
    """The split on which it was measured."""
    sd: Annotated[float, Field(gt=0)] | None = None
    """Standard deviation over seeds, where it was published."""
    of: Annotated[int, Field(ge=1)] = 1
    """How many seeds it is the mean of."""
    band: Annotated[float, Field(gt=0)] | None = None
    """By how much the mean of ours may differ. By default what two standard deviations of the difference make, or 0.5 without `sd`."""


class PublishedTable(FigureTable):
    """`[published]`."""

    teacher: float | None = None
    """The teacher's figure."""
    methods: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies defaults
    """By method (`--method NAME`), a figure or a table of its own; `none` is the student from labels alone."""
    options: dict[str, Any] = {}  # noqa: RUF012
    """By other options as they are typed, such as `"--method crd --set train.batch_size=256"`, a figure or a table of its own. Paths count
    from the profile."""


@dataclass(frozen=True)
class Asked:
    """What the command line makes another experiment of a profile by.

    values: keys that are replaced, with their values as text; those that do not matter are left out.
    """

    method: str | None = None
    teacher: str | None = None
    values: frozenset[tuple[tuple[str, ...], str]] = frozenset()


@dataclass(frozen=True)
class Figure:
    """One published figure, in the unit in which it is told."""

    name: str
    value: float
    table: FigureTable

    def band(self, seeds: int) -> float:
        """By how much the mean of so many seeds may differ."""
        if self.table.band is not None:
            return self.table.band
        return BAND if self.table.sd is None else 2 * self.table.sd * math.sqrt(1 / seeds + 1 / self.table.of)


@dataclass(frozen=True)
class Published:
    """All figures of a profile by what is asked for.

    teacher: the teacher's figure; None if none is stated.
    """

    figures: Mapping[Asked, Figure] = field(default_factory=dict)
    teacher: float | None = None

    def of(self, asked: Asked) -> tuple[Figure | None, bool]:
        """The figure of an experiment, and whether it is that experiment's own: another one's is that of the same method."""
        exact = self.figures.get(asked)
        return (exact, True) if exact is not None else (self.figures.get(Asked(asked.method)), False)
