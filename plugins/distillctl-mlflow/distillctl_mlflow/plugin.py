"""Declares the tracker `mlflow`; its client is imported by runs that use it."""

from __future__ import annotations

from distillctl import TrackerSpec, hookimpl

DISTILLCTL_API = 1


@hookimpl
def register_tracker() -> TrackerSpec:
    """MLflow."""
    return TrackerSpec(
        name="mlflow",
        summary="curves, settings and results for MLflow, on this machine or at a server",
        implementation="distillctl_mlflow.tracker:MLflowTracker",
        options="distillctl_mlflow.options:MLflowOptions",
    )
