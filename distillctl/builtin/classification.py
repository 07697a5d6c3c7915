"""Declares the task of images that belong to one class each."""

from __future__ import annotations

from distillctl.api.hooks import hookimpl
from distillctl.api.specs import TaskSpec


@hookimpl
def register_task() -> TaskSpec:
    """Classification."""
    return TaskSpec(
        name="classification",
        summary="every image belongs to one class: cross entropy, top-1, top-5, mean accuracy of the classes",
        implementation="distillctl.builtin.classification_task:Classification",
        figures=("top1", "top5", "mpa", "loss"),
    )
