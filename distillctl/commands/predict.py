"""Answers of a deployed student to image files, one after the other.

    student = load_student("runs/birds")
    for prediction in predict(student, image_paths(["photos"])):
        print(prediction.path, prediction.answers[:1], prediction.error)

What is kept is one batch and what worker processes have decoded ahead, so that memory does not grow with the number of images but for
their paths.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from distillctl.build.student import Student
from distillctl.data.batches import Workers
from distillctl.data.deployed_view import Preprocessing
from distillctl.data.workers import decoded, no_advice
from distillctl.engine.precision import ieee
from distillctl.errors import DataError, Problem
from distillctl.models.deploy import DESCRIPTION, TASK
from distillctl.plugin.registry import Registry, load

_FEW = 16
"""Images that are decoded sooner than other processes have started."""


@dataclass(frozen=True)
class Prediction:
    """What the student says to one image.

    path: as it was given.
    answers: classes with their probabilities, the likeliest first; none if there is a problem.
    problem: why there are none.
    """

    path: str
    answers: tuple[tuple[str, float], ...]
    problem: Problem | None = None

    @property
    def error(self) -> str:
        """The problem in words that follow the path; empty if there is none."""
        return "" if self.problem is None else self.problem.message.removeprefix(f"the image `{self.path}` ")


def predict(
    student: Student,
    paths: Iterable[str | Path],
    *,
    top: int = 5,
    batch_size: int = 64,
    workers: Workers = "auto",
    registry: Registry | None = None,
) -> Iterator[Prediction]:
    """A prediction for each file, in their order, computed as they are asked for. A broken file is a prediction with a problem.

    Probabilities are the softmax, in float64, of the logits that an evaluation would compute, in float32.

    Args:
        student: from `load_student`. Where it knows no classes, its answers are called by their position among the logits, from 0.
        paths: image files, whatever their endings.
        top: answers to each; all if there are fewer classes.
        batch_size: images that are computed at once.
        workers: processes that decode; `auto` takes none for a few files.
        registry: the installed plugins, where they were loaded already.

    Raises:
        DataError: the student does not tell classes apart.
        RunError: a worker process is gone.
        MachineError: shared memory is too small for what workers hand over.
    """
    if min(top, batch_size) < 1:
        raise ValueError("`top` and `batch_size` must be at least 1")
    _check_task(student, registry)
    files = [str(path) for path in paths]
    return _predictions(student, files, top, batch_size, 0 if workers == "auto" and len(files) <= _FEW else workers)


def class_names(student: Student) -> Sequence[str]:
    """What the answers are called: the classes, or where it knows none the positions of the logits."""
    return student.classes or [str(number) for number in range(student.info["num_classes"])]


def _check_task(student: Student, registry: Registry | None) -> None:
    name = student.info.get("task", TASK)
    if name == TASK:
        return
    spec = (Registry.load() if registry is None else registry).tasks.get(name)
    task = load(spec.implementation, spec.name)
    if task.cuts_rows or "logits" not in task.gives:
        raise DataError(f"the student in `{student.path}` does not tell classes apart: its task is `{spec.name}`")


def _predictions(student: Student, files: Sequence[str], top: int, batch_size: int, workers: Workers) -> Iterator[Prediction]:
    names = class_names(student)
    found = zip(files, decoded(_Pixels(files, student.transform), len(files), workers, student.device), strict=True)
    while batch := list(islice(found, batch_size)):
        yield from _answered(student, names, batch, top)


class _Pixels(Dataset[Any]):
    """What a worker does: a file becomes uint8 pixels, as an array, or a problem."""

    def __init__(self, files: Sequence[str], transform: Preprocessing) -> None:
        self._files, self._transform = files, transform

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Any:
        path = self._files[index]
        try:
            if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for
                raise DataError(f"the image `{path}` is not a file")
            with no_advice():
                # An array goes through a pipe. A tensor would keep a file open in shared memory.
                return np.ascontiguousarray(self._transform.pixels(path).numpy())
        except DataError as error:
            return error.problems[0]


def _answered(student: Student, names: Sequence[str], batch: Sequence[tuple[str, Any]], top: int) -> list[Prediction]:
    whole = [pixels for _, pixels in batch if not isinstance(pixels, Problem)]
    logits = iter(_logits(student, whole, len(names)) if whole else ())
    return [
        Prediction(path, (), pixels) if isinstance(pixels, Problem) else _prediction(path, next(logits), names, top)
        for path, pixels in batch
    ]


@torch.inference_mode()
def _logits(student: Student, pixels: Sequence[Any], outputs: int) -> Tensor:
    """Float32, (B, outputs), on the CPU."""
    images = student.transform.normalise(torch.from_numpy(np.stack(pixels))).to(student.device)
    with ieee():
        logits = student.model(images)
    if not isinstance(logits, Tensor) or logits.shape != (len(pixels), outputs):
        raise DataError(f"the student in `{student.path}` does not give the {outputs} numbers of which `{DESCRIPTION}` tells")
    return logits.float().cpu()


def _prediction(path: str, logits: Tensor, names: Sequence[str], top: int) -> Prediction:
    if not bool(logits.isfinite().all()):
        return Prediction(path, (), Problem(f"the image `{path}` gets an answer that is not finite"))
    order = logits.sort(descending=True, stable=True).indices[:top]  # among equals the first class, as in evaluations
    shares = logits.double().softmax(0)[order]
    return Prediction(path, tuple((names[i], share) for i, share in zip(order.tolist(), shares.tolist(), strict=True)))
