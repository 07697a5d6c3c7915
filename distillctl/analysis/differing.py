"""The images to which student and teacher answer most differently, and small pictures of them: `predictions/differing.npz`."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distillctl.errors import DataError
from distillctl.files import write_atomically
from distillctl.rundir.answers import FOLDER, Answers

MOST = 24
"""Images of which pictures are kept."""
NAME = "differing.npz"


@dataclass(frozen=True)
class Pictures:
    """Pictures of images of one split.

    split: whose images.
    index: places in it, the most different one first.
    files: PNG or JPEG, one for each.
    """

    split: str
    index: tuple[int, ...]
    files: tuple[bytes, ...]


def differences(student: Answers, teacher: Answers) -> NDArray[np.float64]:
    """How far two answers to each image lie apart: (N,), from 0 (alike) to 1.

    Half of Σ|p − q| over the classes that either of them names, the total variation distance. What one of them does not name counts as 0
    there, since only the likeliest classes are kept; with no more classes than those it is exact.
    """
    both = [answers.probabilities.astype(np.float64) for answers in (student, teacher)]
    same = student.classes[:, :, None] == teacher.classes[:, None, :]  # (N, k, k)
    theirs = (same * both[1][:, None, :]).sum(2)  # what the teacher gives to each class that the student names
    unnamed = np.where(same.any(1), 0.0, both[1]).sum(1)
    found: NDArray[np.float64] = 0.5 * (np.abs(both[0] - theirs).sum(1) + unnamed)
    return found


def most_different(student: Answers, teacher: Answers, limit: int = MOST) -> NDArray[np.int64]:
    """Rows of the answers, the most different one first; images to which both answer exactly alike are left out."""
    apart = differences(student, teacher)
    rows: NDArray[np.int64] = np.argsort(-apart, kind="stable")[:limit]
    return rows[apart[rows] > 0]


def write_pictures(run: Path, pictures: Pictures) -> None:
    """Writes them into a run directory.

    Raises:
        OSError: they cannot be written.
    """
    path = run / FOLDER / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.frombuffer(b"".join(pictures.files), np.uint8)
    ends = np.cumsum([len(file) for file in pictures.files], dtype=np.int64)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, split=np.array(pictures.split), index=np.array(pictures.index, np.int64), data=data, ends=ends)

    write_atomically(path, write)


def read_pictures(run: Path) -> Pictures:
    """Those of a run directory.

    Raises:
        DataError: there are none, or they are damaged.
    """
    path = run / FOLDER / NAME
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:  # numpy leaves open what it cannot read
            data, ends, index = file["data"].tobytes(), [0, *file["ends"].tolist()], tuple(file["index"].tolist())
            files = tuple(data[begin:end] for begin, end in pairwise(ends))
            if len(files) != len(index):
                raise DataError(f"`{path}` does not hold the pictures of a run")
            return Pictures(str(file["split"]), index, files)
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"`{path}` cannot be read: {error}") from error
