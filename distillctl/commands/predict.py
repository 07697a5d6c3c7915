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
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from distillctl.api.data import NO_LABELS
from distillctl.api.method import Batch
from distillctl.api.task import Answer, Task
from distillctl.build.student import Student
from distillctl.data.batches import Workers
from distillctl.data.deployed_view import Placement, Preprocessing
from distillctl.data.workers import decoded, no_advice
from distillctl.engine.precision import ieee
from distillctl.errors import DataError, Problem
from distillctl.models.deploy import TASK
from distillctl.plugin.registry import Registry, load_class

TOP = 5
"""Classes that are told of a picture where nothing else is said."""
_FEW = 16
"""Images that are decoded sooner than other processes have started."""


@dataclass(frozen=True)
class Prediction:
    """What the student says to one image.

    path: as it was given.
    answers: classes with their probabilities, or of a detector with their scores, the likeliest first; none if there is a problem.
    problem: why there are none.
    boxes: of a detector, to each answer left, top, right and bottom in pixels of the upright picture.
    """

    path: str
    answers: tuple[tuple[str, float], ...]
    problem: Problem | None = None
    boxes: tuple[tuple[float, float, float, float], ...] = ()

    def above(self, score: float) -> Prediction:
        """The same with the answers that reach this score."""
        kept = [number for number, (_, reached) in enumerate(self.answers) if reached >= score]
        return replace(self, answers=tuple(self.answers[i] for i in kept), boxes=tuple(self.boxes[i] for i in kept if self.boxes))

    @property
    def error(self) -> str:
        """The problem in words that follow the path; empty if there is none."""
        return "" if self.problem is None else self.problem.message.removeprefix(f"the image `{self.path}` ")


def predict(
    student: Student,
    paths: Iterable[str | Path],
    *,
    top: int | None = None,
    min_score: float = 0.0,
    batch_size: int = 64,
    workers: Workers = "auto",
    registry: Registry | None = None,
) -> Iterator[Prediction]:
    """A prediction for each file, in their order, computed as they are asked for. A broken file is a prediction with a problem.

    Probabilities are the softmax, in float64, of the logits that an evaluation would compute, in float32. Of a detector the answers are its
    detections, as an evaluation would judge them.

    Args:
        student: from `load_student`. Where it knows no classes, its answers are called by their position among the logits, from 0.
        paths: image files, whatever their endings.
        top: answers to each; all if there are fewer. None stands for five classes, or for all boxes.
        min_score: boxes with a smaller score are left out.
        batch_size: images that are computed at once.
        workers: processes that decode; `auto` takes none for a few files.
        registry: the installed plugins, where they were loaded already.

    Raises:
        DataError: the student does not tell classes apart, or find boxes.
        RunError: a worker process is gone.
        MachineError: shared memory is too small for what workers hand over.
    """
    if (top is not None and top < 1) or batch_size < 1:
        raise ValueError("`top` and `batch_size` must be at least 1")
    task = task_of(student, registry)
    if top is None and task.answers == "classes":
        top = TOP
    files = [str(path) for path in paths]
    asked = _Asked(student, task, class_names(student), top, min_score if task.answers == "boxes" else 0.0)
    return _predictions(asked, files, batch_size, 0 if workers == "auto" and len(files) <= _FEW else workers)


def class_names(student: Student) -> Sequence[str]:
    """What the answers are called: the classes, or where it knows none the positions of the logits."""
    return student.classes or [str(number) for number in range(student.info["num_classes"])]


def task_of(student: Student, registry: Registry | None = None) -> type[Task]:
    """The task of a student, which says something to pictures.

    Raises:
        DataError: it says nothing.
    """
    spec = (Registry.load() if registry is None else registry).tasks.get(student.info.get("task", TASK))
    task = load_class(spec, Task, "task")
    if not task.answers:
        raise DataError(f"the student in `{student.path}` neither tells classes apart nor finds boxes: its task is `{spec.name}`")
    return task


@dataclass(frozen=True)
class _Asked:
    """Who is asked, and what of its answers is told; `top` is None for all."""

    student: Student
    task: type[Task]
    names: Sequence[str]
    top: int | None
    min_score: float


def _predictions(asked: _Asked, files: Sequence[str], batch_size: int, workers: Workers) -> Iterator[Prediction]:
    student = asked.student
    found = zip(files, decoded(_Pixels(files, student.transform), len(files), workers, student.device), strict=True)
    while batch := list(islice(found, batch_size)):
        yield from _answered(asked, batch)


class _Pixels(Dataset[Any]):
    """What a worker does: a file becomes uint8 pixels, as an array, and where the picture lies in them, or a problem."""

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
                pixels, placement = self._transform.placed(path)
                return np.ascontiguousarray(pixels.numpy()), placement
        except DataError as error:
            return error.problems[0]


def _answered(asked: _Asked, batch: Sequence[tuple[str, Any]]) -> list[Prediction]:
    whole = [one for _, one in batch if not isinstance(one, Problem)]
    answers = iter(_answers(asked, whole) if whole else ())
    return [Prediction(path, (), one) if isinstance(one, Problem) else _prediction(path, next(answers), asked) for path, one in batch]


@torch.inference_mode()
def _answers(asked: _Asked, decoded_files: Sequence[tuple[Any, Placement]]) -> list[list[Answer] | None]:
    student = asked.student
    if student.transform.unequal and len(decoded_files) > 1:
        return [answer for one in decoded_files for answer in _answers(asked, [one])]
    images = student.transform.normalise(torch.from_numpy(np.stack([pixels for pixels, _ in decoded_files]))).to(student.device)
    placed = [{"scale": torch.tensor(one.scale), "offset": torch.tensor(one.offset)} for _, one in decoded_files]
    if student.transform.unequal:
        placed[0]["view"] = torch.tensor(decoded_files[0][0].shape[-2:])
    batch = Batch(images, NO_LABELS, torch.arange(len(images)), targets=placed)
    with ieee():
        return asked.task.respond(student.model, batch, outputs=student.info["num_classes"], top=asked.top)


def _prediction(path: str, answers: Sequence[Answer] | None, asked: _Asked) -> Prediction:
    if answers is None:
        return Prediction(path, (), Problem(f"the image `{path}` gets an answer that is not finite"))
    boxes = tuple(one.box for one in answers if one.box is not None)
    return Prediction(path, tuple((asked.names[one.label], one.score) for one in answers), boxes=boxes).above(asked.min_score)
