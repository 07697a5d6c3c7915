"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import ModelSpec, hookimpl

DISTILLCTL_API = 1

# The last blocks at strides 4, 8, 16 and 32.
_LAST = {"stage1": 3, "stage2": 5, "stage3": 11, "stage4": 13}

MOBILENET_V1 = ModelSpec(
    name="mobilenet_v1",
    namespace="imagenet",
    summary="MobileNetV1 at full width",
    paper="Howard et al. 2017, arXiv 1704.04861",
    implementation="distillctl_mobilenetv1.network:build",
    stages={
        "stem": "model.0",
        **{stage: f"model.{block}" for stage, block in _LAST.items()},
        **{f"{stage}:pre": f"model.{block}.5:input" for stage, block in _LAST.items()},
    },
    classifier="fc",
    parameters=4_231_976,
)


@hookimpl
def register_model() -> ModelSpec:
    """MobileNetV1."""
    return MOBILENET_V1
