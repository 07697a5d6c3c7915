"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import DatasetSpec, ModelSpec, hookimpl

DISTILLCTL_API = 1
TINY_IMAGENET = DatasetSpec(
    name="tiny-imagenet",
    summary="200 classes of ImageNet at 64×64 pixels, 100,000 photographs for training and 10,000 for the test",
    paper="Le, Yang 2015, Tiny ImageNet Visual Recognition Challenge, CS231N",
    implementation="distillctl_tinyimagenet.data:build",
    options="distillctl_tinyimagenet.options:TinyImageNetOptions",
    preview="distillctl_tinyimagenet.places:preview",
)
_LAST = {"stage1": "rows.1", "stage2": "rows.2", "stage3": "rows.3"}
MOBILENET_V2 = ModelSpec(
    name="tiny_mobilenet_v2",
    namespace="tiny-imagenet",
    summary="MobileNetV2 at full width for 64×64 pixels, 2.5 M parameters",
    paper="Sandler et al. 2018, arXiv 1801.04381",
    implementation="distillctl_tinyimagenet.network:build",
    # A linear bottleneck is its own pre-activation.
    stages={
        "stem": "stem",
        **_LAST,
        "stage4": "last",
        **{f"{stage}:pre": path for stage, path in _LAST.items()},
        "stage4:pre": "last.2:input",
    },
    classifier="classifier",
    input_size=64,
    parameters=2_497_480,
    classes=200,
)


@hookimpl
def register_dataset() -> DatasetSpec:
    """Tiny-ImageNet."""
    return TINY_IMAGENET


@hookimpl
def register_model() -> ModelSpec:
    """The MobileNetV2 of published runs."""
    return MOBILENET_V2
