"""What runs have computed, counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillctl.analysis.compute import Compute, best_within, compute_of, macs_by_line, mean_compute
from distillctl.analysis.records import RunRecord

STUDENT, TEACHER, METHODS = 10, 70, 3
IMAGES, EVALUATED = 100, 20
STEP = STUDENT * (IMAGES + EVALUATED) + 2 * STUDENT * IMAGES + TEACHER * IMAGES + 3 * METHODS * IMAGES
"""Multiply-accumulates of an epoch: forwards, backward, the teacher, and the methods forward and backward."""


def made(top1: tuple[float, ...] = (0.5, 0.7, 0.6), **costs: Any) -> RunRecord:
    lines = [
        {"phase": "main", "epoch": epoch, "val": {"top1": one, "count": EVALUATED}, "forwards": {"student": 120, "teacher": IMAGES}}
        for epoch, one in enumerate(top1, start=1)
    ]
    count = len(lines)
    told: dict[str, Any] = {
        "student": {"macs": STUDENT},
        "teacher": {"macs": TEACHER},
        "methods": {"macs": METHODS},
        "forwards": {"student": 120 * count + 50, "teacher": IMAGES * count + 30},
        "images": IMAGES * count,
    }
    run = RunRecord(Path("a"), {"state": "finished", "seconds": 9.0, "costs": {**told, **costs}}, {})
    run.__dict__["history"] = lines
    return run


def test_the_compute_of_a_run() -> None:
    assert compute_of(made()) == Compute(300, 410, 330, 3 * STEP + 50 * STUDENT + 30 * TEACHER, 9)
    assert macs_by_line(made()) == [STEP, 2 * STEP, 3 * STEP]


def test_two_passes_are_trained_twice() -> None:
    """An image that goes through the student twice goes back twice."""
    run = made((0.5,), forwards={"student": 220, "teacher": IMAGES}, methods={})
    run.history[0]["forwards"]["student"] = 2 * IMAGES + EVALUATED
    assert compute_of(run).macs == STUDENT * (220 + 2 * 200) + TEACHER * IMAGES


@pytest.mark.parametrize("missing", ["student", "teacher", "forwards"])
def test_what_was_not_recorded_is_not_known(missing: str) -> None:
    run = made(**{missing: {}})
    assert compute_of(run).macs is None
    assert compute_of(run).seconds == 9
    if missing != "forwards":
        assert macs_by_line(run) is None
    older = RunRecord(Path("a"), {"state": "finished"}, {})
    older.__dict__["history"] = [{"epoch": 1}]
    assert compute_of(older) == Compute(None, None, None, None, None)


def test_a_mean_leaves_out_what_is_not_known() -> None:
    one, other = compute_of(made()), Compute(100, None, None, None, None)
    assert mean_compute([one, other]) == Compute(200, one.student, one.teacher, one.macs, one.seconds)
    assert mean_compute([other]).macs is None


@pytest.mark.parametrize(("budget", "found"), [(STEP - 1, None), (STEP, (1, 0.5)), (2.5 * STEP, (2, 0.7)), (99 * STEP, (2, 0.7))], ids=str)
def test_the_best_within_a_budget(budget: float, found: tuple[int, float] | None) -> None:
    assert best_within(made(), "top1", budget, lower=False) == found


def test_the_best_of_a_loss_is_the_lowest_and_phases_are_not_the_run() -> None:
    run = made()
    assert best_within(run, "top1", 99 * STEP, lower=True) == (1, 0.5)
    run.history[0]["phase"] = "warm"
    assert best_within(run, "top1", STEP, lower=False) is None
    assert best_within(run, "top9", 99 * STEP, lower=False) is None
