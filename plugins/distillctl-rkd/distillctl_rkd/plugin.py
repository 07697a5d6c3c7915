"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="rkd",
    kind="relations",
    summary="match the distances of two samples and the angles of three as they are for the teacher",
    paper="Park, Kim, Lu, Cho 2019, arXiv 1904.05068",
    title="Relational Knowledge Distillation",
    authors="Park, Wonpyo and Kim, Dongju and Lu, Yan and Cho, Minsu",
    venue="CVPR",
    implementation="distillctl_rkd.method:RKD",
    options="distillctl_rkd.options:RKDOptions",
    formula="25 · mean over B² of SmoothL1(D_s/mean D_s, D_t/mean D_t) + 50 · mean over B³ of SmoothL1(cos ψ_s, cos ψ_t)",
    compares_images=True,
    capturable=True,
)


@hookimpl
def register_method() -> MethodSpec:
    """Relational knowledge distillation."""
    return SPEC
