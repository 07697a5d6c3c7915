"""Declares `imagefolder`."""

from __future__ import annotations

from distillctl.api.hooks import hookimpl
from distillctl.api.specs import DatasetSpec


@hookimpl
def register_dataset() -> DatasetSpec:
    """One's own images."""
    return DatasetSpec(
        name="imagefolder",
        summary="your own images: one folder for each class, with or without train, val and test above them; or without labels",
        implementation="distillctl.builtin.imagefolder_data:build",
        options="distillctl.builtin.imagefolder_options:ImageFolderOptions",
        preview="distillctl.builtin.imagefolder_tree:preview",
    )
