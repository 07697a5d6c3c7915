"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import DatasetSpec, hookimpl

DISTILLCTL_API = 1
IMAGENET = DatasetSpec(
    name="imagenet",
    summary="the 1000 classes of ILSVRC 2012, 1.28 million photographs for training and 50,000 for the test",
    paper="Russakovsky et al. 2015, ImageNet Large Scale Visual Recognition Challenge, arXiv 1409.0575",
    implementation="distillctl_imagenet.data:build",
    options="distillctl_imagenet.options:ImageNetOptions",
    preview="distillctl_imagenet.places:preview",
)


@hookimpl
def register_dataset() -> DatasetSpec:
    """ImageNet."""
    return IMAGENET
