"""Checkpoints: plain tensors and containers, written atomically, known by their hash, read without unpickling objects.

Random numbers need no saving: the global generators are seeded anew at every step from (seed, step), the order of the
images is a function of (seed, epoch), and their augmentation one of (seed, epoch, image).
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from distillctl.errors import DataError, MachineError
from distillctl.files import FULL_OR_CLOSED, hashed, sync_folder, temporary_beside, write_atomically
from distillctl.rundir import digests
from distillctl.rundir.directory import RunDirectory
from distillctl.text import one_line

FORMAT = 3


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint of a run; a crash at any moment, or a full disk, leaves the old one.

    Raises:
        MachineError: the disk is full, or cannot be written to.
    """
    _write(path, state)


def save_last(run: RunDirectory, state: dict[str, Any]) -> None:
    """As `save`, for the newest full state; the one before it is kept.

    Raises:
        MachineError: the disk is full, or cannot be written to.
    """
    _write(run.last, state, lambda: _take_over(run.last, run.previous) if run.last.is_file() else None)


def promote(run: RunDirectory) -> None:
    """Makes the student that waits to be the best one `best.pt`, once the full state that says so is saved."""
    if run.next_best.is_file():
        with digests.replacing(run.best, digests.current(run.next_best)):
            run.next_best.replace(run.best)
        digests.beside(run.next_best).unlink(missing_ok=True)
        sync_folder(run.best.parent)


def _write(path: Path, state: dict[str, Any], keep_old: Callable[[], object] = lambda: None) -> None:
    digest = ""

    def write(temporary: Path) -> None:
        nonlocal digest
        with hashed(temporary) as (file, result):
            torch.save({"format": FORMAT, **state}, file)
            digest = result()

    def ready() -> None:
        keep_old()
        renaming.enter_context(digests.replacing(path, digest))

    try:
        with ExitStack() as renaming:
            write_atomically(path, write, ready)
    except OSError as error:
        if error.errno not in FULL_OR_CLOSED:
            raise
        raise MachineError(
            f"the checkpoint `{path}` cannot be written: {(error.strerror or str(error)).lower()}",
            hint="the last good one is kept: make room, and the same command continues the run",
        ) from error


def load(path: Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU.

    Raises:
        DataError: it is damaged, no checkpoint of ours, or of another format.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:  # `save` packs nothing
                raise ValueError("it says to hold more than it does")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise nearly anything
        reason = one_line((str(error).splitlines() or [type(error).__name__])[0], 200)
        raise DataError(f"the checkpoint `{path}` is damaged: {reason}", hint="start anew with `--fresh`") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT or not isinstance(state.get("student"), Mapping):
        raise DataError(f"`{path}` is not a checkpoint of this version of distillctl")
    return state


def load_newest(run: RunDirectory, *, previous: bool = False) -> dict[str, Any] | None:
    """The state from which a run goes on; None if it has none yet.

    previous: take the one before the newest, which then is the newest.

    Raises:
        DataError: the newest is damaged, foreign or gone; the message offers the one before it if that is whole.
    """
    if previous:
        return _go_back(run)
    problem = digests.problem(run.last)
    if not problem and not run.last.is_file():
        if not run.previous.is_file():
            return None
        problem = "is gone"
    if not problem:
        try:
            return load(run.last)
        except DataError as error:
            problem = error.problems[0].message.partition("` ")[2]
    older = _whole(run)
    if older is None:
        raise DataError(f"the checkpoint `{run.last}` {problem}, and there is no whole one before it", hint="start anew with `--fresh`")
    raise DataError(
        f"the checkpoint `{run.last}` {problem}", hint=f"the one before it is whole ({_place(older)}): `--from-previous` continues from it"
    )


def _go_back(run: RunDirectory) -> dict[str, Any]:
    older = _whole(run)
    if older is None:
        raise DataError(f"`{run.path}` has no whole checkpoint before the newest one")
    if run.last.is_file():
        run.last.replace(run.last.with_name("last.pt.left"))  # nothing is deleted: somebody may want to look at it
    _take_over(run.previous, run.last)
    return older


def _take_over(source: Path, target: Path) -> None:
    """Makes `target` the same file as `source`, without a moment at which it is half there."""
    temporary = temporary_beside(target)
    temporary.unlink(missing_ok=True)
    with digests.replacing(target, digests.current(source)):
        try:
            os.link(source, temporary)
        except OSError:  # a file system without links
            write_atomically(target, lambda copy: shutil.copyfile(source, copy))
        else:
            temporary.replace(target)
            temporary.unlink(missing_ok=True)  # renaming does nothing where both are one file already


def _whole(run: RunDirectory) -> dict[str, Any] | None:
    if not run.previous.is_file() or digests.problem(run.previous):
        return None
    try:
        return load(run.previous)
    except DataError:
        return None


def _place(state: dict[str, Any]) -> str:
    position = state["position"]
    return f"{position['epoch']} epochs and {position['step']} steps done"
