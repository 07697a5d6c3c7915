"""How far a run has come, how long it took, and which epoch is the best so far."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass
class Position:
    """What a checkpoint says beside the weights.

    epoch: finished epochs of all parts together.
    step: steps done of the next one.
    best_epoch: of the main part, counted from 1; 0 if none was evaluated yet.
    best_figure: the figure by which it is the best.
    seconds, epoch_seconds: of all training and evaluation so far, and of the epoch that is not finished.
    """

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_figure: float = -math.inf
    seconds: float = 0.0
    epoch_seconds: float = 0.0

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Position:
        """The position of a checkpoint."""
        return cls(**{field.name: state[field.name] for field in fields(cls)})

    def finish_epoch(self, epoch: int, figure: float | None, *, last: bool) -> bool:
        """Counts an epoch and decides whether it is the best.

        epoch: of the main part, counted from 1.
        figure: on the validation split; None if that was not looked at.
        last: whether it is the last epoch of a run that has no validation split, which is the best by definition.
        """
        self.epoch += 1
        self.step, self.epoch_seconds = 0, 0.0
        # A tie goes to the later epoch, which has seen more.
        if not last and (figure is None or not figure >= self.best_figure):  # what is not a number is never the best
            return False
        self.best_epoch, self.best_figure = epoch, -math.inf if figure is None else figure
        return True

    def forget_best(self) -> None:
        """The best epoch is one that comes again."""
        self.best_epoch, self.best_figure = 0, -math.inf


class Clock:
    """Adds the time that passes to a position."""

    def __init__(self, position: Position) -> None:
        self._position = position
        self.restart()

    def restart(self) -> None:
        """Time begins to count now."""
        self._since = time.perf_counter()

    def tick(self) -> None:
        """Adds the time since the last call."""
        now = time.perf_counter()
        self._position.seconds += now - self._since
        self._position.epoch_seconds += now - self._since
        self._since = now
