"""Declares the trackers that come with distillctl, beside the display and the record that every run has."""

from __future__ import annotations

from distillctl.api.hooks import hookimpl
from distillctl.api.specs import TrackerSpec


@hookimpl
def register_tracker() -> TrackerSpec:
    """A table for spreadsheets."""
    return TrackerSpec(
        name="csv",
        summary="metrics.csv in the run directory: a line for each epoch, for spreadsheets",
        implementation="distillctl.builtin.csv_tracker:CSVTracker",
        options="distillctl.builtin.csv_tracker:CSVOptions",
    )
