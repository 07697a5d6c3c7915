"""What this package declares to distillctl."""

from __future__ import annotations

from distillctl import MethodSpec, hookimpl

DISTILLCTL_API = 1
SPEC = MethodSpec(
    name="vkd",
    kind="features",
    summary="turn the student's pooled feature by an orthogonal matrix into the teacher's normalised one",
    paper="Miles, Elezi, Deng 2024, arXiv 2403.06213",
    title="VkD: Improving Knowledge Distillation using Orthogonal Projections",
    authors="Miles, Roy and Elezi, Ismail and Deng, Jiankang",
    venue="CVPR",
    implementation="distillctl_vkd.method:VkD",
    options="distillctl_vkd.options:VkDOptions",
    formula="mean_{B,d} smooth_l1(P·g_s − LN(g_t)), PᵀP = I or PPᵀ = I",
)


@hookimpl
def register_method() -> MethodSpec:
    """Distillation by an orthogonal projection."""
    return SPEC
