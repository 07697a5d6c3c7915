"""Declares the tracker `trackio`; its client is imported by runs that use it."""

from __future__ import annotations

from distillctl import TrackerSpec, hookimpl

DISTILLCTL_API = 1


@hookimpl
def register_tracker() -> TrackerSpec:
    """Trackio."""
    return TrackerSpec(
        name="trackio",
        summary="curves and settings for Trackio, on this machine or in a Space",
        implementation="distillctl_trackio.tracker:TrackioTracker",
        options="distillctl_trackio.options:TrackioOptions",
    )
