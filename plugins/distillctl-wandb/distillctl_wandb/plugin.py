"""Declares the tracker `wandb`; its client is imported by runs that use it."""

from __future__ import annotations

from distillctl import TrackerSpec, hookimpl

DISTILLCTL_API = 1


@hookimpl
def register_tracker() -> TrackerSpec:
    """Weights & Biases."""
    return TrackerSpec(
        name="wandb",
        summary="curves, settings and results for Weights & Biases",
        implementation="distillctl_wandb.tracker:WandbTracker",
        options="distillctl_wandb.options:WandbOptions",
    )
