"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, Preset, hookimpl

DISTILLCTL_API = 1
_LAST = ["stage3", "stage4"]
"""The last maps at strides 16 and 32; a ResNet's or a MobileNetV2's, whose last is that of its head convolution."""
_GHOST = ["blocks.6", "blocks.8"]
"""The same of timm's GhostNet, whose declared stages end earlier."""
_BIRDS: tuple[tuple[str, str, dict[str, object]], ...] = (  # teacher, student, values
    ("resnet50", "mobilenet_v2", {"weight": 100.0, "student_stages": _LAST, "teacher_stages": _LAST}),
    ("mobilenet_v2", "mobilenet_v2", {"weight": 100.0, "student_stages": _LAST, "teacher_stages": _LAST}),
    ("resnet50", "resnet50", {"weight": 100.0, "student_stages": _LAST, "teacher_stages": _LAST}),
    ("ghostnet_100", "mobilenet_v2", {"weight": 1000.0, "student_stages": _LAST, "teacher_stages": _GHOST}),
    ("ghostnet_100", "ghostnet_100", {"weight": 1000.0, "student_stages": _GHOST, "teacher_stages": _GHOST}),
)
SPEC = MethodSpec(
    name="at",
    kind="features",
    summary="match where the stages look: maps of activation strength, summed over the channels",
    paper="Zagoruyko, Komodakis 2017, arXiv 1612.03928",
    title="Paying More Attention to Attention: Improving the Performance of Convolutional Neural Networks via Attention Transfer",
    authors="Zagoruyko, Sergey and Komodakis, Nikos",
    venue="ICLR",
    implementation="distillctl_at.method:AT",
    options="distillctl_at.options:ATOptions",
    formula="Σ_stages mean_{B,h,w} (A_s − A_t)², A = normalise(mean_c |f|^p)",
    weight=1000.0,
    capturable=True,
    presets=(
        Preset(
            when={"mode": "paper"},
            values={"weight": 5.0},
            source="our choice, of the size of the other mode's term; none is published",
        ),
        *(
            Preset(
                dataset="cub200",
                teacher=teacher,
                student=student,
                when={"mode": "code"},
                values=values,
                source="pytorch-classifier's run for this pair",
            )
            for teacher, student, values in _BIRDS
        ),
    ),
)


@hookimpl
def register_method() -> MethodSpec:
    """Attention transfer."""
    return SPEC
