"""A task of boxes for tests, which needs no detector."""

from __future__ import annotations

import torch
from torch import nn

from distillctl.api.method import Batch
from distillctl.api.specs import TaskSpec
from distillctl.api.task import Answer, Task

_SEEN = ((0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.5, 0.5), (0.125, 0.125, 0.25, 0.25))


class TinyBoxes(Task):
    """Finds in every view the same three boxes: all of it, its upper left quarter, and a small one, with scores 7/8, 1/2 and 1/8."""

    answers = "boxes"

    @classmethod
    def respond(cls, model: nn.Module, batch: Batch, *, outputs: int, top: int | None = None) -> list[list[Answer] | None]:
        return [_boxes(one["scale"], one["offset"], batch.images.shape[-1])[:top] for one in batch.targets]


def _boxes(scale: torch.Tensor, offset: torch.Tensor, side: int) -> list[Answer]:
    edges = ((torch.tensor(_SEEN) * side - offset.repeat(2)) / scale.repeat(2)).tolist()
    return [Answer(label, score, tuple(box)) for label, (score, box) in enumerate(zip((0.875, 0.5, 0.125), edges, strict=True))]


TINY_BOXES = TaskSpec(name="tiny_boxes", summary="for tests", implementation="distillctl.testing.tiny_tasks:TinyBoxes")
