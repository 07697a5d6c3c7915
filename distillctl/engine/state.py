"""The full state of a run as a checkpoint keeps it, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from distillctl.engine import checkpoint
from distillctl.engine.experiment import MAIN, Experiment
from distillctl.engine.position import Position
from distillctl.engine.step import Step
from distillctl.errors import DataError
from distillctl.rundir import digests
from distillctl.rundir.directory import RunDirectory


def full_state(experiment: Experiment, step: Step, position: Position, meters: list[dict[str, Any]] | None) -> dict[str, Any]:
    """All that a run needs to go on. meters: of all processes, in the middle of an epoch."""
    return {
        "digest": experiment.digest,
        "position": vars(position).copy(),
        "part": step.part.name,
        "steps": experiment.loader.steps,
        "epoch": max(0, position.epoch - experiment.main.begin),
        "meters": meters,
        **step.learner.state_dict(),
    }


def position_of(state: dict[str, Any], experiment: Experiment, run: RunDirectory, accepted: Sequence[str]) -> Position:
    """Where a checkpoint stands.

    Raises:
        DataError: it is one of another profile, or of more epochs than there are now.
    """
    if state["digest"] not in (experiment.digest, *accepted):
        raise DataError(f"the checkpoint in `{run.path}` belongs to another profile", hint="start anew with `--fresh`")
    position = Position.from_state(state["position"])
    if state["steps"] != experiment.loader.steps:  # batches were accepted that are cut otherwise: the epoch begins anew
        position.step, state["meters"] = 0, None
    if position.epoch > experiment.epochs:
        raise DataError(f"`{run.path}` has done {position.epoch} epochs already, and the profile now asks for {experiment.epochs}")
    return position


def restore(state: dict[str, Any], experiment: Experiment, step: Step, run: RunDirectory) -> None:
    """Puts a state into what the step trains.

    Raises:
        DataError: it does not fit.
    """
    learner = step.learner
    try:
        same_part = state.get("part", MAIN) == step.part.name
        learner.load_state_dict(state, same_part=same_part, same_profile=state["digest"] == experiment.digest)
    except (RuntimeError, ValueError, KeyError) as error:
        raise DataError(
            f"the checkpoint in `{run.path}` does not fit the run as it is now: {str(error).splitlines()[0]}", hint="`--fresh` starts anew"
        ) from error
    if state["meters"] is not None:
        processes = experiment.processes
        for meter in state["meters"][processes.rank :: processes.count]:
            learner.meter.absorb(meter)


def settle_best(run: RunDirectory, position: Position) -> None:
    """Makes `best.pt` the epoch that the checkpoint knows as the best, whatever a crash or `--from-previous` left."""
    if run.next_best.is_file():
        found = checkpoint.load(run.next_best)["epoch"] if not digests.problem(run.next_best) else 0
        if found and found == position.best_epoch:
            checkpoint.promote(run)
        else:
            run.next_best.unlink()
    kept = checkpoint.load(run.best)["epoch"] if run.best.is_file() and not digests.problem(run.best) else None
    if kept is not None and kept != position.best_epoch:  # a later epoch, which comes again
        position.forget_best()


def restore_student(model: nn.Module, path: Path) -> int:
    """Loads the weights that were evaluated at a checkpoint; returns its epoch.

    Raises:
        DataError: it is damaged, or does not fit the model.
    """
    state = checkpoint.load(path)
    average = state.get("ema")
    try:
        model.load_state_dict(state["student"] if average is None else average["model"])
        return int(state["epoch"] if "epoch" in state else state["position"]["epoch"])
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"the checkpoint `{path}` does not fit the run as it is now: {str(error).partition(chr(10))[0]}") from error


__all__ = ["full_state", "position_of", "restore", "restore_student", "settle_best"]
