"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, Preset, hookimpl

DISTILLCTL_API = 1
_LAST = ["stage3", "stage4"]
"""The last maps at strides 16 and 32; a ResNet's or a MobileNetV2's, whose last is that of its head convolution."""
_GHOST = ["blocks.6", "blocks.8"]
"""The same of timm's GhostNet, whose declared stages end earlier."""
SPEC = MethodSpec(
    name="sp",
    kind="relations",
    summary="make the samples of a batch as similar to each other as they are for the teacher",
    paper="Tung, Mori 2019, arXiv 1907.09682",
    title="Similarity-Preserving Knowledge Distillation",
    authors="Tung, Frederick and Mori, Greg",
    venue="ICCV",
    implementation="distillctl_sp.method:SP",
    options="distillctl_sp.options:SPOptions",
    formula="Σ_stages 1/B² · ‖N(F_t·F_tᵀ) − N(F_s·F_sᵀ)‖²_F, F (B, C·H·W), N = rows of length 1",
    weight=3000.0,
    compares_images=True,
    capturable=True,
    presets=tuple(
        Preset(
            dataset="cub200",
            teacher=teacher,
            student="mobilenet_v2",
            values={"weight": 10.0, "row_norm": "l1", "student_stages": _LAST, "teacher_stages": stages},
            source="pytorch-classifier's run for this pair",
        )
        for teacher, stages in (("resnet50", _LAST), ("ghostnet_100", _GHOST))
    ),
)


@hookimpl
def register_method() -> MethodSpec:
    """Similarity-preserving distillation."""
    return SPEC
