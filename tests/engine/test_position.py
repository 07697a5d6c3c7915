from __future__ import annotations

import math

import pytest

from distillctl.engine.position import Clock, Position


def played(figures: list[float | None], *, chooses: bool = True) -> Position:
    position = Position()
    for epoch, figure in enumerate(figures, start=1):
        position.finish_epoch(epoch, figure, last=epoch == len(figures) and not chooses)
    return position


@pytest.mark.parametrize(
    ("figures", "best"),
    [
        ([0.1, 0.3, 0.2], 2),
        ([0.1, 0.3, 0.3, 0.2], 3),  # a tie goes to the later epoch
        ([-7.0, -5.0, -6.0], 2),  # figures need not be shares
        ([0.5, math.nan, 0.4], 1),
        ([math.nan, 0.1], 2),
        ([None, 0.2, None], 2),  # not every epoch is evaluated
    ],
)
def test_the_highest_figure_is_the_best(figures: list[float | None], best: int) -> None:
    position = played(figures)
    assert position.best_epoch == best
    assert position.best_figure == figures[best - 1]
    assert (position.epoch, position.step, position.epoch_seconds) == (len(figures), 0, 0.0)


def test_without_a_validation_split_the_last_epoch_is_the_best() -> None:
    assert played([None, None, None], chooses=False).best_epoch == 3


def test_a_position_goes_round_and_forgets() -> None:
    position = played([0.1, 0.3])
    assert Position.from_state(vars(position)) == position
    position.forget_best()
    assert position.finish_epoch(3, -1e9, last=False)


def test_a_clock_counts_from_its_last_tick() -> None:
    position = Position(seconds=100.0)
    clock = Clock(position)
    clock.tick()
    first = position.seconds
    assert first >= 100.0
    clock.tick()
    assert position.seconds >= first
    assert position.epoch_seconds == pytest.approx(position.seconds - 100.0)
