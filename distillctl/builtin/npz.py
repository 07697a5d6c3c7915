"""Declares `npz`."""

from __future__ import annotations

from distillctl.api.hooks import hookimpl
from distillctl.api.specs import DatasetSpec


@hookimpl
def register_dataset() -> DatasetSpec:
    """One's own images in arrays."""
    return DatasetSpec(
        name="npz",
        summary="your own images as arrays in a NumPy file, with or without val and test, as MedMNIST's files have them",
        implementation="distillctl.builtin.npz_data:build",
        options="distillctl.builtin.npz_options:NpzOptions",
        preview="distillctl.builtin.npz_file:preview",
    )
