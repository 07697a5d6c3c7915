"""What a run has computed: images, forwards, multiply-accumulates, time; and how much of it when an epoch was over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean
from typing import Any

from distillctl.analysis.records import MAIN, RunRecord

BACKWARD = 2
"""A backward pass costs as much as two forwards: gradients of inputs and of weights are a product each."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Compute:
    """The compute of a run, or the mean of several. What a run did not record is None.

    images: of training, each as often as it was seen.
    student, teacher: images that went forward through each, evaluations included.
    macs: multiply-accumulates of all that. A backward pass through the student and through the methods' own layers counts as two
        forwards. The training of the teacher is no part of it.
    seconds: of training and evaluations.
    """

    images: float | None
    student: float | None
    teacher: float | None
    macs: float | None
    seconds: float | None


def compute_of(run: RunRecord) -> Compute:
    """The compute of a whole run."""
    costs = _table(run.info, "costs")
    forwards = _table(costs, "forwards")
    steps = _epochs(run)
    macs = None
    if steps is not None and "student" in forwards:
        ends = float(forwards["student"]) - sum(student for student, _, _ in steps)  # evaluations when it was over
        first = float(forwards.get("teacher", 0)) - sum(teacher for _, teacher, _ in steps)  # and those of the teacher before
        macs = sum(_macs(run, steps)) + ends * _of_side(costs, "student") + first * _of_side(costs, "teacher")
    return Compute(_number(costs, "images"), _number(forwards, "student"), _number(forwards, "teacher"), macs, run.seconds or None)


def mean_compute(runs: Sequence[Compute]) -> Compute:
    """The mean of each, over the runs that recorded it."""

    def mean(name: str) -> float | None:
        values = [value for one in runs if (value := getattr(one, name)) is not None]
        return fmean(values) if values else None

    return Compute(mean("images"), mean("student"), mean("teacher"), mean("macs"), mean("seconds"))


def macs_by_line(run: RunRecord) -> Sequence[float] | None:
    """Multiply-accumulates until each line of `metrics.jsonl` was written; None where they were not recorded."""
    steps = _epochs(run)
    return None if steps is None else list(accumulate(_macs(run, steps)))


def best_within(run: RunRecord, metric: str, budget: float, *, lower: bool) -> tuple[int, float] | None:
    """The epoch and the figure of the best evaluation on the validation split that a run reached within a budget of multiply-accumulates;
    None if there is none. lower: whether a lower figure is better.
    """
    spent = macs_by_line(run)
    if spent is None:
        return None
    found: tuple[int, float] | None = None
    for line, macs in zip(run.history, spent, strict=True):
        value = _table(line, "val").get(metric)
        if line.get("phase", MAIN) != MAIN or value is None or macs > budget * (1 + _ROUNDING):
            continue
        if found is None or (value < found[1] if lower else value > found[1]):
            found = (int(line.get("epoch", 0)), float(value))
    return found


def _epochs(run: RunRecord) -> list[tuple[float, float, float]] | None:
    """For each line the forwards of student and teacher, and how many of the student's were trained; None where a line does not say it."""
    costs, found = _table(run.info, "costs"), []
    if "macs" not in _table(costs, "student") or not run.history:
        return None
    for line in run.history:
        forwards = _table(line, "forwards")
        teacher = float(forwards.get("teacher", 0))
        if "student" not in forwards or (teacher and "macs" not in _table(costs, "teacher")):
            return None
        evaluated = sum(float(_table(line, split).get("count", 0)) for split in ("val", "test"))
        found.append((float(forwards["student"]), teacher, float(forwards["student"]) - evaluated))
    return found


def _macs(run: RunRecord, steps: Sequence[tuple[float, float, float]]) -> list[float]:
    costs = _table(run.info, "costs")
    student, teacher, methods = (_of_side(costs, name) for name in ("student", "teacher", "methods"))
    images = (_number(costs, "images") or 0) / len(steps)  # as many in each epoch
    of_methods = methods * images * (1 + BACKWARD)
    return [student * (forward + BACKWARD * trained) + teacher * asked + of_methods for forward, asked, trained in steps]


def _of_side(costs: Mapping[str, Any], side: str) -> float:
    return float(_table(costs, side).get("macs", 0))


def _number(table: Mapping[str, Any], key: str) -> float | None:
    found = table.get(key)
    return float(found) if isinstance(found, int | float) else None


def _table(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = table.get(key)
    return found if isinstance(found, Mapping) else {}
