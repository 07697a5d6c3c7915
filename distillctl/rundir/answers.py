"""What a network answered to each image of an evaluation: `predictions/<split>-<who>.npz` in a run directory. It may be deleted."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distillctl.errors import DataError
from distillctl.files import write_atomically

FOLDER = "predictions"


@dataclass(frozen=True)
class Answers:
    """The answers of a classifier.

    index: int64, (N,), the image's place in the split.
    label: int64, (N,).
    classes: int64, (N, k), the likeliest classes, the likeliest first; k is 5, or the number of classes where there are fewer.
    probabilities: float32, (N, k), those of `classes`.
    own: float32, (N,), the probability of the label.
    """

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    classes: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    own: NDArray[np.float32]

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,), whether the likeliest class is the label."""
        found: NDArray[np.bool_] = self.classes[:, 0] == self.label
        return found


def answers_file(run: Path, split: str, who: str = "best") -> Path:
    """Where they lie. who: `best`, the student of the chosen epoch, or `teacher`."""
    return run / FOLDER / f"{split}-{who}.npz"


def write_answers(path: Path, answers: Answers) -> None:
    """Writes a file; its folder is made.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # numpy appends `.npz` to names
            np.savez_compressed(file, **{field.name: getattr(answers, field.name) for field in fields(answers)})

    write_atomically(path, write)


def read_answers(path: Path) -> Answers:
    """What a file holds.

    Raises:
        DataError: it is not there, or not what a run wrote.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = Answers(**{field.name: arrays[field.name] for field in fields(Answers)})
    except (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:  # a TypeError where it is one array
        raise DataError(f"`{path}` cannot be read: {error}") from error
    count = len(found.index) if found.index.ndim == 1 else -1
    shape = found.classes.shape
    rows = {found.label.shape, found.own.shape} == {(count,)}
    if not (rows and len(shape) == 2 and shape[0] == count and shape[1] > 0 and found.probabilities.shape == shape):
        raise DataError(f"`{path}` does not hold the answers of a run")
    return found
