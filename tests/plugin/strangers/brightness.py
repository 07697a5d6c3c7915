"""A stranger's package: pictures with a number each, the task of telling that number, and somebody who keeps what a run says.

Nothing in distillctl knows of it. It imports from the top level alone, as plugins do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillctl import (
    ArrayImages,
    Batch,
    DatasetSpec,
    Evaluation,
    Options,
    Outputs,
    RunError,
    RunStart,
    Splits,
    Task,
    TaskSpec,
    Tracker,
    TrackerSpec,
    View,
    hookimpl,
)

DISTILLCTL_API = 1


class Regression(Task):
    """One number for each image; the loss is the squared error."""

    metric = "explained"
    names = {"explained": "R²", "error": "mean error"}

    @property
    def outputs(self) -> int:
        return 1

    def label_loss(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {"square": F.mse_loss(outputs["logits"].float()[:, 0], batch.targets)}

    def figures(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {"error": (outputs["logits"].detach()[:, 0] - batch.targets).abs().sum()}

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        answers: Tensor = model(batch.images)
        return answers[:, 0].float()

    def meter(self) -> Errors:
        return Errors()

    def floor(self, images: Any) -> float:
        """Who always says the mean explains nothing."""
        return 0.0


class Errors:
    """Answers beside the truth."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def add(self, predictions: Tensor, batch: Batch) -> None:
        self.pairs.append((predictions, batch.targets))

    def state(self) -> list[tuple[Tensor, Tensor]]:
        return [(answer.cpu(), truth.cpu()) for answer, truth in self.pairs]

    def merge(self, states: Sequence[list[tuple[Tensor, Tensor]]]) -> None:
        longest = max(map(len, states))
        self.pairs = [state[k] for k in range(longest) for state in states if k < len(state)]

    def result(self) -> Evaluation:
        if not self.pairs:
            raise RunError("there is no image to evaluate")
        answers, truth = (torch.cat(part).double() for part in zip(*self.pairs, strict=True))
        square = (answers - truth).square().mean() / truth.var(unbiased=False)
        return Evaluation({"explained": 1 - float(square), "error": float((answers - truth).abs().mean()), "count": len(truth)}, answers)


class BrightnessOptions(Options):
    """How many pictures there are."""

    count: int = 96
    """Training pictures."""


def build_brightness(options: BrightnessOptions, seed: int) -> Splits:
    """Noise of 8×8 pixels whose mean brightness is the target."""
    draw = torch.Generator().manual_seed(7)

    def images(count: int) -> ArrayImages:
        targets = torch.rand(count, generator=draw)
        pixels = torch.rand(count, 8, 8, 3, generator=draw) * 40 + targets[:, None, None, None] * 200
        return ArrayImages(pixels.to(torch.uint8), targets=targets)

    return Splits(images(options.count), images(40), images(40), (), (0.5,) * 3, (0.25,) * 3, View(8, "crop_flip", 1), "brightness")


class Notebook(Tracker):
    """Writes a line for every call; `fails` names one that raises instead."""

    lines: list[str] = []

    def begin(self, run: RunStart) -> None:
        self._write("begin", f"{run.student} {run.method} {run.metric} {len(run.records)}/{run.epochs}")

    def teacher(self, split: str, figures: Mapping[str, float], text: str) -> None:
        self._write("teacher", f"{split} {sorted(figures)}")

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._write("epoch", f"{record['phase']} {record['epoch']}")
        record["terms"].clear()  # type: ignore[attr-defined]

    def end(self, result: Mapping[str, Any]) -> None:
        self._write("end", f"{result['best']['epoch']}")

    def close(self) -> None:
        self._write("close", "")

    def _write(self, what: str, text: str) -> None:
        if self.options.fails == what:
            raise SystemExit(f"no paper left for {what}")
        self.lines.append(f"{what} {text}".strip())


class NotebookOptions(Options):
    """What goes wrong."""

    fails: str = ""
    """A call that raises."""


@hookimpl
def register_task() -> TaskSpec:
    """Telling a number."""
    return TaskSpec(name="regression", summary="one number for each image", implementation="brightness:Regression")


@hookimpl
def register_dataset() -> DatasetSpec:
    """Pictures with their brightness."""
    return DatasetSpec(
        name="brightness",
        summary="made-up pictures and how bright they are",
        implementation="brightness:build_brightness",
        options="brightness:BrightnessOptions",
        task="regression",
    )


@hookimpl
def register_tracker() -> TrackerSpec:
    """A notebook."""
    return TrackerSpec(
        name="notebook", summary="keeps what a run says", implementation="brightness:Notebook", options="brightness:NotebookOptions"
    )
