"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import DatasetSpec, hookimpl

DISTILLCTL_API = 1
HF = DatasetSpec(
    name="hf",
    summary="images and labels of a Hugging Face data set, from a folder or from the hub",
    implementation="distillctl_hf.data:build",
    options="distillctl_hf.options:HFOptions",
    preview="distillctl_hf.places:preview",
)


@hookimpl
def register_dataset() -> DatasetSpec:
    """Hugging Face's data sets."""
    return HF
