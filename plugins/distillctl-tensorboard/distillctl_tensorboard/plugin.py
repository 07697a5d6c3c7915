"""Declares the tracker `tensorboard`; its client is imported by runs that use it."""

from __future__ import annotations

from distillctl import TrackerSpec, hookimpl

DISTILLCTL_API = 1


@hookimpl
def register_tracker() -> TrackerSpec:
    """TensorBoard."""
    return TrackerSpec(
        name="tensorboard",
        summary="curves for TensorBoard, in files in the run directory",
        implementation="distillctl_tensorboard.tracker:TensorBoardTracker",
        options="distillctl_tensorboard.options:TensorBoardOptions",
    )
