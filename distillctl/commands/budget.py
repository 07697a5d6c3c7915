"""Which models fit a budget of time, parameters, multiply-accumulates or bytes on this machine.

What costs nothing to know is asked first: the declared parameters, then those and the multiply-accumulates of a model on torch's `meta`
device, which computes nothing. Only what is left is built and timed, the cheapest first.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from distillctl.api.specs import ModelSpec
from distillctl.commands.measure import Cost, Failure, Settings, Top1, counted, in_child, measure, top1
from distillctl.commands.subjects import Subject
from distillctl.errors import DistillError, ProfileError
from distillctl.plugin.registry import Registry

_UNITS = {
    "ms": ("seconds", 1e-3),
    "k": ("parameters", 1e3),
    "m": ("parameters", 1e6),
    "mmacs": ("macs", 1e6),
    "gmacs": ("macs", 1e9),
    "mb": ("file", 1e6),
}
_BYTES_OF_A_PARAMETER = 4
_FASTER_THAN_A_PRODUCT = 4
"""How much faster than a product of large matrices a convolution may be: Winograd's F(4×4, 3×3) saves three quarters of the products."""

Measure = Callable[[Subject, Settings, Registry], Cost | Failure]


@dataclass(frozen=True)
class Budget:
    """The most that a model may cost: seconds of a forward of one image, parameters, multiply-accumulates of an image, bytes on disk."""

    seconds: float = math.inf
    parameters: float = math.inf
    macs: float = math.inf
    file: float = math.inf

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Budget:
        """`10ms`, `5M` (parameters), `300MMACs`, `20MB`; of several of one kind the smallest holds.

        Raises:
            ProfileError: one is of another form.
        """
        limits: dict[str, float] = {}
        for text in texts:
            found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([a-z]+)", text.strip().lower())
            if found is None or found[2] not in _UNITS or float(found[1]) == 0:
                hint = "allowed: a number with ms (of one image), k or M (parameters), MMACs, GMACs or MB, such as `10ms` or `5M`"
                raise ProfileError(f"`{text}` is not a budget", where="--budget", hint=hint)
            name, factor = _UNITS[found[2]]
            limits[name] = min(float(found[1]) * factor, limits.get(name, math.inf))
        return cls(**limits)

    def allows(self, cost: Cost) -> bool:
        """Whether all holds that is known; times that were not measured are not known."""
        one = cost.latencies.get(1)
        return (
            cost.parameters <= self.parameters
            and cost.macs <= self.macs
            and cost.file <= self.file
            and (one is None or one.median <= self.seconds)
        )


@dataclass
class Fitting:
    """What came out.

    rows: what fits, the largest first: by multiply-accumulates where the budget has those or a time, otherwise by parameters.
    failures: models that could not be measured. unknown: how many have no known top-1. candidates: how many there were.
    timed: how many were built and timed. more: how many fit beside the rows.
    """

    candidates: int
    rows: list[Cost] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    unknown: int = 0
    timed: int = 0
    more: int = 0


def fitting(
    subjects: Sequence[Subject],
    settings: Settings,
    registry: Registry,
    budget: Budget,
    *,
    min_top1: float = 0.0,
    limit: int = 0,
    told: Callable[[str], None] = lambda _: None,
    measured: Measure | None = None,
) -> Fitting:
    """The models that fit, each with all that it costs.

    Args:
        subjects: among which they are looked for.
        settings: checked ones; the batch of one image is always timed.
        registry: where names are found.
        budget: all of it must hold.
        min_top1: leave out what is known to be worse, and what is not known to be better. 0 leaves nothing out.
        limit: so many rows; 0 means all.
        told: is told what is going on.
        measured: measures one model, instead of `measure`.
    """
    settings = replace(settings, batches=tuple(sorted({1, *settings.batches})), most_seconds=budget.seconds)
    result = Fitting(len(subjects))
    known: list[tuple[Cost | None, Subject, Top1 | None]] = []
    for number, subject in enumerate(subjects, 1):
        told(f"looking at {number:,} of {len(subjects):,}: {subject.name}")
        try:
            good = top1(subject, settings, registry)
            if min_top1 and (good is None or good.value < min_top1):
                result.unknown += good is None
                continue
            if subject.run is None and _declared_too_large(registry.models.get(subject.name), settings, budget):
                continue
            cost = counted(subject, settings, registry)
        except DistillError as error:
            result.failures.append(Failure(subject.name, error.problems[0].message, error.problems[0].hint))
            continue
        if cost is None or budget.allows(cost):
            known.append((cost, subject, good))
    known.sort(key=lambda entry: math.inf if entry[0] is None else entry[0].macs)
    by = "parameters" if math.isinf(budget.seconds) and math.isinf(budget.macs) else "macs"
    if math.isinf(budget.seconds) and limit:  # no time decides, so that only what is shown has to be timed
        sizes = sorted((-getattr(cost, by), subject.name) for cost, subject, _ in known if cost is not None)
        shown = {name for _, name in sizes[:limit]}
        left = [entry for entry in known if entry[0] is None or entry[1].name in shown]
        result.more, known = len(known) - len(left), left
    elif settings.device == "cpu" and known:
        rate = _fastest(settings)
        known = [entry for entry in known if entry[0] is None or entry[0].macs <= _FASTER_THAN_A_PRODUCT * rate * budget.seconds]
    for number, (_, subject, good) in enumerate(known, 1):
        told(f"timing {number:,} of {len(known):,}: {subject.name}")
        result.timed += 1
        found = (measured or measure)(subject, settings, registry)
        if isinstance(found, Failure):
            result.failures.append(found)
        elif budget.allows(found):
            result.rows.append(replace(found, top1=good))
    result.rows.sort(key=lambda cost: (-getattr(cost, by), cost.name))
    if limit and len(result.rows) > limit:
        result.more += len(result.rows) - limit
        del result.rows[limit:]
    return result


def _declared_too_large(spec: ModelSpec, settings: Settings, budget: Budget) -> bool:
    """Whether what is declared says it already. It is said of the default options, and with fewer classes there are fewer parameters."""
    if settings.options or not spec.parameters or 0 < settings.classes < spec.classes:
        return False
    return spec.parameters > budget.parameters or spec.parameters * _BYTES_OF_A_PARAMETER > budget.file


def _fastest(settings: Settings) -> float:
    """Multiply-accumulates a second of a product of large matrices; infinite where it cannot be measured."""
    found = in_child("", _product, settings.threads)
    return math.inf if isinstance(found, Failure) else found


def _product(threads: int, size: int = 1024, count: int = 20) -> float:
    if threads:
        torch.set_num_threads(threads)
    matrix = torch.ones(size, size)
    best = math.inf
    for _ in range(count):
        started = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - started)
    return float(size**3 / best)
